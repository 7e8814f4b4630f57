"""Errors that a person can act on.

Every error of Mimicscope's own says what is wrong, the value received, what is allowed and the
next step. The pieces are arguments, so that none can be forgotten and the app can lay them out.
"""

from __future__ import annotations

import difflib
import errno
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

_MISSING = object()
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxfrozenset = 20
_SHORT.maxstring = _SHORT.maxother = 1000


def _shown(value: object) -> str:
    """``repr``, but short: a value that is refused may be a list of lists of millions."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python does not print integers of thousands of digits
        return "a number of thousands of digits"


class MimicError(Exception):
    """A failure whose cause and remedy are known.

    Args:
        problem: What is wrong, one sentence without a full stop.
        got: The offending value, shown by ``repr``, shortened where it is long; left out when
            there is none.
        allowed: What would have been accepted.
        next_step: What the reader can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        got: object = _MISSING,
        allowed: str | None = None,
        next_step: str,
    ) -> None:
        self.problem = problem
        self.got = None if got is _MISSING else _shown(got)
        self.allowed = allowed
        self.next_step = next_step
        super().__init__(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """An error of an image reader passes whole to the process that waits for it."""
        return _revived, (type(self), self.__dict__)

    def __str__(self) -> str:
        parts = [self.problem]
        if self.got is not None:
            parts.append(f"got {self.got}")
        if self.allowed is not None:
            parts.append(f"allowed: {self.allowed}")
        return f"{'; '.join(parts)}. Next step: {self.next_step}"


def _revived(kind: type[MimicError], parts: dict[str, Any]) -> MimicError:
    """An error of its stored parts, whose value is text already."""
    error = kind.__new__(kind)
    error.__dict__.update(parts)
    error.args = (str(error),)
    return error


class ConfigError(MimicError):
    """A setting, or a combination of settings, that cannot be run."""


class SourceError(MimicError):
    """A dataset that cannot be opened or understood as a whole."""


class ModelError(MimicError):
    """A model, checkpoint, mimic layer or pair of models that cannot be used."""


class ScoreError(MimicError):
    """A score that cannot be computed: no direction, a non-finite loss, too large a batch."""


class RunError(MimicError):
    """A run directory or feature set that is missing, damaged or of another version."""


class FilterError(MimicError):
    """A recipe that cannot be parsed or applied to the table at hand."""


def no_such_column(name: str, columns: Iterable[str]) -> FilterError:
    """The error for a column that a table lacks; names those that are spelt alike."""
    there = list(columns)
    near = difflib.get_close_matches(name, there)
    return FilterError(
        "the table has no such column",
        got=name,
        allowed=", ".join(near or there),
        next_step=f"did you mean {near[0]}?" if near else "choose one of its columns",
    )


class ExportError(MimicError):
    """An export that cannot be written as asked."""


class RemoteError(MimicError):
    """Object storage did not answer, or no longer holds what it held."""


class JobError(MimicError):
    """A background job that cannot be started, found or resumed."""


class Interrupted(Exception):
    """The user asked to stop; what is finished stays on disk and the same command resumes."""


def require_layer(name: str, parameters: Mapping[str, object]) -> None:
    """Raise a ``ModelError`` listing near matches unless ``name`` is one of ``parameters``."""
    if name in parameters:
        return
    tail = name.removesuffix(".weight").split(".")[-1]
    near = difflib.get_close_matches(name, parameters, n=5, cutoff=0.5)
    near += [other for other in parameters if tail and tail in other and other not in near]
    raise ModelError(
        "the model has no parameter of that name",
        got=name,
        allowed="near matches: " + (", ".join(near[:5]) or ", ".join(list(parameters)[-5:])),
        next_step="give the exact name of a parameter as --mimic-layer",
    )


_PLACE = "check the path, or choose another place"
_REMEDIES = {
    errno.EACCES: "choose another place, or let the user that runs this read and write there",
    errno.EPERM: "choose another place, or let the user that runs this read and write there",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "free some space, or choose another disk",
    errno.EDQUOT: "free some space, or choose another disk",
}


def file_remedy(error: OSError) -> str:
    """What a person can do where the file system refuses."""
    return _REMEDIES.get(error.errno or 0, _PLACE)


def printable(text: str) -> str:
    r"""``text`` in one line that a terminal only shows: a control character would be obeyed.

    Names of columns, conditions and files come from anybody. What cannot be printed is written as
    Python writes it, such as ``\x1b``.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
