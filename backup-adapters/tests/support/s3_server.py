"""An S3 server for tests: moto on a free port of this machine, which it prints. Ends with its standard input.

Changes are made one at a time: moto looks whether an object exists and stores it in two steps, so of two requests
with `If-None-Match: *` both can win. With S3_SERVER_RACING set in the environment it is left as it is.
A request that was cut short changes nothing, as on real servers.
"""

import os
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app  # type: ignore[attr-defined, unused-ignore]
from werkzeug.serving import WSGIRequestHandler, make_server

Environment = dict[str, Any]
Start = Callable[[str, list[tuple[str, str]]], object]
Application = Callable[[Environment, Start], Iterable[bytes]]

BUCKETS = ["bucket", "other"]


class OneAtATime:
    def __init__(self, application: Application) -> None:
        self.application = application
        self.lock = threading.Lock()

    def __call__(self, environ: Environment, start_response: Start) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self.application(environ, start_response)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if len(body) < length:
            start_response("400 Bad Request", [("Content-Type", "application/xml")])
            return [b"<Error><Code>IncompleteBody</Code></Error>"]
        environ["wsgi.input"] = Body(body)
        if "S3_SERVER_RACING" in os.environ:
            return self.application(environ, start_response)
        with self.lock:
            return list(self.application(environ, start_response))


class Body:
    """A body that is in memory, readable as often as somebody likes to."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def read(self, size: int | None = -1) -> bytes:
        end = len(self.content) if size is None or size < 0 else self.at + size
        part = self.content[self.at : end]
        self.at += len(part)
        return part

    def readline(self, size: int = -1) -> bytes:
        end = self.content.find(b"\n", self.at) + 1 or len(self.content)
        return self.read(end - self.at)

    def readlines(self, hint: int = -1) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line


class Quiet(WSGIRequestHandler):  # type: ignore[misc, unused-ignore]  # untyped where werkzeug is not installed
    def log(self, *arguments: object) -> None:
        pass


def main() -> None:
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for bucket in BUCKETS:
        url = f"http://127.0.0.1:{server.port}/{bucket}"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()
    print(server.port, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


main()
