"""What is the user's to put right: the error that is shown without a traceback, and the nearest name that would do."""

import difflib
from collections.abc import Sequence


class UsageError(ValueError):
    """Something the user can put right; the message says what and how, and is shown without a traceback."""


def nearest(word: str, known: Sequence[str]) -> str:
    """Ends an error message: the closest of the known names, or all of them when there are few."""
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {', '.join(near)}?"
    return f"; there are: {', '.join(sorted(known))}" if 0 < len(known) <= 20 else ""
