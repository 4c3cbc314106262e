"""Text that comes from outside (data, addresses, other programs' words), made fit to be shown and kept."""

import re

LONGEST = 80  # characters of a name from data that a line shows
HIDDEN = "***"
# Names of parameters whose values are secret, as servers, stores and databases spell them.
_SECRET = (
    r"[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|credential|api[_-]?key|access[_-]?key|account[_-]?key|sas"
    r"|signature)[\w.-]*|sig|sv|auth|pass"
)
_IN_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<login>[^\s/?#'\"<>]*)@")
_IN_QUERY = re.compile(rf"(?P<name>(?:[?&;]|%26|%3F)(?:{_SECRET})(?:=|%3D))(?P<value>[^\s&;'\"<>)\]]+)", re.IGNORECASE)
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
    spelled = "".join(letter if letter.isprintable() else _spelled(letter) for letter in str(text)[: longest + 1])
    return spelled if len(spelled) <= longest else f"{spelled[: longest - 1]}…"


def _spelled(letter: str) -> str:
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


def _without_login(address: re.Match[str]) -> str:
    user, separator, _ = address["login"].partition(":")
    return f"{address['scheme']}{user}:{HIDDEN}@" if separator else f"{address['scheme']}{HIDDEN}@"
