"""The second half of an error message about an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """
    :param name: what the user wrote
    :param known: the names that would have been understood
    :param otherwise: what to say where no known name is close; by default, all of them are listed
    :return: the closest known name as a question, or the other thing
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return otherwise or f"known: {', '.join(names)}"
