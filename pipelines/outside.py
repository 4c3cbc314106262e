"""Text that comes from outside (data, addresses, other programs' words), made fit to be shown and kept."""

import io
import re
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

LONGEST = 80  # characters of a name from data that a line shows
HIDDEN = "***"
# Names of parameters whose values are secret, as servers, stores and databases spell them.
_SECRET = (
    r"[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|credential|api[_-]?key|access[_-]?key|account[_-]?key|sas"
    r"|signature)[\w.-]*|sig|sv|auth|pass"
)
# The second form is a password with characters that belong escaped (`/`, `?`, `'`): what follows the colon is no port.
_IN_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][\w+.-]*://)"
    r"(?P<login>[^\s/?#'\"<>]*|[^\s/?#'\"<>:@]*:(?!\d+(?:[/?#'\"<>,;)\]}\s]|$))[^\s<>]*)@"
)
_IN_QUERY = re.compile(
    rf"(?P<name>(?:[?&;]|%26|%3F)(?:{_SECRET})(?:=|%3D))(?P<value>[^\s&;'\"<>)\]]+)", re.IGNORECASE
)
_IN_HEADER = re.compile(r"(?P<name>\b(?:Bearer|Basic)\s+)(?P<value>[\w.~+/=-]{6,})", re.IGNORECASE)
_IN_ASSIGNMENT = re.compile(
    r"(?P<name>\b[\w.-]*(?:password|passwd|secret|api[_-]?key|access[_-]?key|[_-]token)['\"]?\s*[=:]\s*['\"]?)"
    r"(?P<value>[^\s'\",;&)\]}*]+)",
    re.IGNORECASE,
)


def printable(text: object, longest: int = LONGEST) -> str:
    """Returns `text` on one line without control characters, and cut where it is longer than `longest` characters.

    What a terminal would obey (escape sequences, line breaks, characters that change the direction of writing) is spelled
    as Python spells it: `\\x1b`, `\\n`, `\\u202e`. Bytes that were no UTF-8 are spelled `\\udcff`.
    """
    beginning = str(text)[: longest + 1]
    spelled = "".join(_spelled(letter) for letter in beginning)
    if len(spelled) <= longest:
        return spelled
    return f"{spelled[: longest - 1]}…"


def quoted(text: object, longest: int = LONGEST) -> str:
    """Returns `text` as `printable` does, between quotation marks; `repr` would spell a second time what is spelled."""
    return f"'{printable(text, longest)}'"


def _spelled(letter: str) -> str:
    if letter.isprintable():
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def redacted(text: str) -> str:
    """Returns `text` without the passwords and tokens that addresses and error messages carry.

    Hidden are `user:password@` and a lone `token@` of any address, secret parameters of its query (`password=`, `token=`,
    `sig=`, …), `Bearer …` and assignments of such names. The user's name stays where a password follows it.
    """
    text = _IN_ADDRESS.sub(_without_login, text)
    text = _IN_QUERY.sub(rf"\g<name>{HIDDEN}", text)
    text = _IN_HEADER.sub(rf"\g<name>{HIDDEN}", text)
    return _IN_ASSIGNMENT.sub(rf"\g<name>{HIDDEN}", text)


def without_secrets(document: Any) -> Any:
    """Returns a document of plain values, as JSON holds them, with every text in it `redacted`.

    A text whose own name says that it is secret (`api_key`, `SOME_TOKEN`) is hidden as a whole.
    """
    if isinstance(document, Mapping):
        return {name: _named(name, document[name]) for name in document}
    if isinstance(document, list | tuple):
        return [without_secrets(value) for value in document]
    return redacted(document) if isinstance(document, str) else document


def _named(name: object, value: Any) -> Any:
    if not isinstance(value, str):
        return without_secrets(value)
    assignment = f"{name}=x"
    if redacted(assignment) != assignment:
        return HIDDEN
    return redacted(value)


def reason(error: object, longest: int = 300) -> str:
    """Returns what another program says of an error, fit to be shown and kept: one line without secrets, cut at the end."""
    # Cut last: half of an address shows its password and no longer looks like one.
    words = str(error).split()
    return printable(redacted(" ".join(words)), longest)


def told(error: BaseException) -> str:
    """Returns the traceback of `error` without secrets."""
    return redacted("".join(traceback.format_exception(error)))


class Discreet(io.TextIOBase):
    """A text stream that hides secrets in every line before it goes to `stream`; what has no line end yet waits."""

    def __init__(self, stream: TextIO) -> None:
        """Takes over what is written to `stream`."""
        self._stream = stream
        self._waiting = ""

    def write(self, text: str) -> int:
        """Hands on whole lines."""
        text_so_far = self._waiting + text
        lines, end, self._waiting = text_so_far.rpartition("\n")
        self._stream.write(redacted(lines) + end)
        return len(text)

    def flush(self) -> None:
        """Hands on also what has no line end."""
        self._stream.write(redacted(self._waiting))
        self._waiting = ""
        self._stream.flush()

    def fileno(self) -> int:
        """The descriptor below, for programs that are started."""
        return self._stream.fileno()


def _without_login(address: re.Match[str]) -> str:
    user, separator, _ = address["login"].partition(":")
    login = f"{user}:{HIDDEN}" if separator else HIDDEN
    return f"{address['scheme']}{login}@"
