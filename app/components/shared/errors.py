"""How an error looks. ``errors_shown`` is the only place where the app catches one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from app.text import plain
from mimic_core.base.errors import ConfigError, MimicError, file_remedy

Missing = list[ConfigError]

_log = logging.getLogger(__name__)


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show an error from inside the block as a message; the page goes on behind it.

    A ``MimicError`` and what the file system refuses say what to do. Anything else is a defect of
    ours: it is called one, and its traceback goes to the server's log, not to the screen.
    Streamlit's own signals (stop, rerun) are no ``Exception`` and pass.
    """
    try:
        yield
    except MimicError as error:
        show_failure(error.problem, got=error.got, allowed=error.allowed, next_step=error.next_step)
    except OSError as error:
        _log.warning("the file system refused", exc_info=error)
        _show_refused(error)
    except Exception as error:  # noqa: BLE001 - here and only here a defect becomes a message
        _log.exception("a defect was shown on the page")
        show_failure(
            f"this is a defect of Mimicscope: {type(error).__name__}: {error}",
            got=None,
            allowed=None,
            next_step="report it with the traceback that the server has printed; to go on, undo "
            "the last step or reload the page",
        )


def _show_refused(error: OSError) -> None:
    """What the file system said, about which path."""
    show_failure(
        f"the file system refuses this: {error.strerror or error}",
        got=None if error.filename is None else str(error.filename),
        allowed=None,
        next_step=file_remedy(error),
    )


def show_failure(problem: str, *, got: str | None, allowed: str | None, next_step: str) -> None:
    """The four parts of an error: what is wrong, the value, what is allowed, what to do."""
    lines = [f"**{plain(problem[:1].upper() + problem[1:])}**"]
    if got is not None:
        lines.append(f"Got: {plain(got)}")
    if allowed is not None:
        lines.append(f"Allowed: {plain(allowed)}")
    lines.append(f"**Next step:** {plain(next_step)}")
    st.error("\n\n".join(lines), icon=":material/error:")


def empty_state(title: str, body: str, *, icon: str) -> None:
    """What a view shows when there is nothing to show: why, and how to get something."""
    with st.container(border=True, horizontal_alignment="center", key=f"empty-{title}"):
        st.markdown(f"#### {icon} {plain(title)}", text_alignment="center")
        st.markdown(plain(body), text_alignment="center")


def missing_hint(missing: Missing) -> None:
    """What to fill in next: a hint and no error, since nobody has done anything wrong yet."""
    first = missing[0]
    st.info(
        f"{plain(first.problem[:1].upper() + first.problem[1:])}: {plain(first.next_step)}.",
        icon=":material/edit:",
    )
