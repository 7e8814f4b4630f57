"""What a tab and its server say to each other: whether an event still waits for its answer.

The page alone cannot tell. Between a click and the first sign of the rerun it causes nothing on
it changes, and on a busy machine that can take seconds.
"""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg


class Traffic:
    """Follows the messages of one tab from its first page on."""

    def __init__(self, page: Any) -> None:
        self.unanswered = False
        self.asked = 0.0
        """When the tab last asked for a rerun, by the monotonic clock."""
        page.on("websocket", self._follow)

    def _follow(self, socket: Any) -> None:
        socket.on("framesent", self._sent)
        socket.on("framereceived", self._received)

    def _sent(self, frame: bytes | str) -> None:
        if isinstance(frame, bytes) and BackMsg.FromString(frame).WhichOneof("type") == (
            "rerun_script"
        ):
            self.unanswered = True
            self.asked = time.monotonic()

    def _received(self, frame: bytes | str) -> None:
        if not isinstance(frame, bytes):
            return
        message = ForwardMsg.FromString(frame)
        kind = message.WhichOneof("type")
        if kind == "new_session":  # also of a rerun that the script itself asks for
            self.unanswered = True
        elif kind == "script_finished":
            self.unanswered = message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN


_OF_PAGE: WeakKeyDictionary[Any, Traffic] = WeakKeyDictionary()


def follow(page: Any) -> None:
    """Start to follow a tab that has not opened a page yet."""
    _OF_PAGE[page] = Traffic(page)


def traffic(page: Any) -> Traffic:
    return _OF_PAGE[page]
