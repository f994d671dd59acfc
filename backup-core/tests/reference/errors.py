"""What can be wrong with a repository. Every error names the object by its storage key."""

from typing import ClassVar


class Rejected(Exception):
    """Nothing of the object may be used ("Notation": to reject)."""

    kind: ClassVar[str] = "damaged"

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class Damaged(Rejected):
    """A rule of the format is broken."""


class Foreign(Damaged):
    """A sealed object that is well-formed, and of another repository: its id differs in 24 bits or more."""


class Unsupported(Rejected):
    """Written by a later version ("What a reader must reject", last paragraph)."""

    kind = "unsupported"


class LimitExceeded(Rejected):
    """More than the format, or the caller, allows ("Limits")."""

    kind = "limit-exceeded"


class Missing(Rejected):
    """An object that has to be there is not."""

    kind = "not-found"


class WrongPassword(Rejected):
    """No key slot opens with this credential."""

    kind = "wrong-password"


class UnusableCredential(Rejected):
    """What should be a password, a key file or a recovery key cannot be one."""

    kind = "invalid-argument"


def shown(path: bytes) -> str:
    """A path for people: it cannot break a line, nor send commands to a terminal."""
    return "".join(
        character if character.isprintable() and character != "\\" else _escaped(character)
        for character in path.decode("utf-8", "surrogateescape")
    )


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
