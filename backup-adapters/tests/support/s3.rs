//! A real S3 server on this machine, and a network before it that fails as it is told to.
#![allow(dead_code, reason = "every test program uses a part of it")]

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use super::skip;

/// The environment of programs that use the server: any key is right there.
pub(crate) const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "test-access-key"),
    ("AWS_SECRET_ACCESS_KEY", "test-secret-of-the-access-key"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_ALLOW_HTTP", "true"),
];

/// Moto (`s3_server.py`), with the buckets `bucket` and `other`.
#[derive(Debug)]
pub(crate) struct S3Server {
    port: u16,
    /// Ends when its standard input does, at the latest with this process.
    _process: Child,
}

impl S3Server {
    /// The one of this test program; `None`, loudly, where moto is not installed. `MOTO_PYTHON` names an interpreter
    /// that has it.
    pub(crate) fn get() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<S3Server>> = OnceLock::new();
        let server = SERVER.get_or_init(Self::start).as_ref();
        if server.is_none() {
            skip("there is no moto server: pip install 'moto[server]', and name the interpreter in MOTO_PYTHON");
        }
        server
    }

    fn start() -> Option<Self> {
        let python = std::env::var_os("MOTO_PYTHON").unwrap_or_else(|| OsString::from("python3"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../backup-adapters/tests/support/s3_server.py");
        let mut process = Command::new(python)
            .arg(Path::new(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take()?).read_line(&mut line).ok()?;
        let port = line.trim().parse().ok()?;
        Some(Self { port, _process: process })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// A prefix that nobody else uses.
    pub(crate) fn prefix() -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// Stores an object without any of our code.
    pub(crate) fn put_raw(&self, path: &str, content: &str) {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        let length = content.len();
        write!(stream, "PUT /{path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{content}").unwrap();
        // What the server says is all that counts: it may reset the connection behind its answer.
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains(" 200 "), "{answer} {end:?}");
    }

    /// Deletes the object `name` in a directory of the repository, without any of our code. Returns whether it was there.
    pub(crate) fn delete_raw(&self, prefix: &str, directory: &str, name: &str) -> bool {
        let ask = |method: &str| {
            let mut stream = TcpStream::connect(self.address()).unwrap();
            // The server looks who asks, not whether it is true.
            let who =
                "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
            let path = format!("/bucket/{prefix}/{directory}/{name}");
            write!(stream, "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: {who}\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        };
        let exists = ask("HEAD").contains(" 200 ");
        exists && ask("DELETE").contains(" 204 ")
    }
}

/// What a network does to one request. The server behind it closes connections after each, so that a connection is a
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing.
    Pass,
    /// The connection is cut behind so many bytes of the request.
    CutRequest(usize),
    /// The request arrives; the connection is cut behind so many bytes of the answer.
    CutAnswer(usize),
    /// The request does not arrive, and somebody answers with this status and code.
    Answer(u16, &'static str),
}

/// A proxy that decides the fate of each request, numbered from 0.
pub(crate) struct Network {
    port: u16,
    state: Arc<State>,
}

struct State {
    server: SocketAddr,
    script: Mutex<Script>,
    requests: AtomicU64,
}

type Script = Box<dyn FnMut(u64) -> Fate + Send>;

impl Network {
    pub(crate) fn to(server: &S3Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script: Script = Box::new(|_| Fate::Pass);
        let state =
            Arc::new(State { server: server.address(), script: Mutex::new(script), requests: AtomicU64::new(0) });
        let network = Self { port, state: Arc::clone(&state) };
        // Both end with the process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                thread::spawn(move || {
                    // Whatever fails here is a cut connection, which is what this is about.
                    let _ = state.serve(&client);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        network
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on `script` decides; numbers begin again.
    pub(crate) fn script(&self, script: impl FnMut(u64) -> Fate + Send + 'static) {
        let mut current = self.state.script.lock().unwrap();
        *current = Box::new(script);
        self.state.requests.store(0, Ordering::SeqCst);
    }

    /// Requests since the script began.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }
}

impl State {
    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        let fate = {
            let mut script = self.script.lock().unwrap();
            script(self.requests.fetch_add(1, Ordering::SeqCst))
        };
        if let Fate::Answer(status, code) = fate {
            read_request(client)?;
            return answer(client, status, code);
        }
        let server = TcpStream::connect(self.server)?;
        let (cut_request, cut_answer) = match fate {
            Fate::CutRequest(bytes) => (Some(bytes), None),
            Fate::CutAnswer(bytes) => (None, Some(bytes)),
            Fate::Pass | Fate::Answer(..) => (None, None),
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                let is_cut = copy(client, &server, cut_request);
                if is_cut {
                    let _ = client.shutdown(Shutdown::Both);
                }
                // The answer still comes, except that of a request which was cut.
                let _ = server.shutdown(if is_cut { Shutdown::Both } else { Shutdown::Write });
            });
            copy(&server, client, cut_answer);
            let _ = client.shutdown(Shutdown::Both);
        });
        Ok(())
    }
}

/// Copies to the end, or until the first byte behind `limit` comes, and says whether that was so.
fn copy(mut from: &TcpStream, mut to: &TcpStream, limit: Option<usize>) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    let mut left = limit.unwrap_or(usize::MAX);
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(read) => read,
        };
        if to.write_all(&buffer[..read.min(left)]).is_err() {
            return false;
        }
        if read > left {
            return true;
        }
        left -= read;
    }
}

/// Reads a request to its end, so that the answer is not lost with what nobody has read.
fn read_request(mut client: &TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    io::copy(&mut client.take(length.unwrap_or(0)), &mut io::sink()).map(drop)
}

fn answer(mut client: &TcpStream, status: u16, code: &str) -> io::Result<()> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>told to</Message></Error>");
    let length = body.len();
    write!(client, "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}
