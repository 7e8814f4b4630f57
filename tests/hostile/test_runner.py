"""The runner itself: what it catches, and that the suite holds the cases it promises."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.hostile.runner import Hostile, bounded

PROMISED = 200


def test_the_suite_holds_the_cases_it_promises(request: pytest.FixtureRequest) -> None:
    here = Path(__file__).parent
    cases = [item for item in request.session.items if item.path.parent == here]
    whole = {item.path.name for item in cases} == {path.name for path in here.glob("test_*.py")}
    if not whole or request.config.option.keyword or hasattr(request.config, "workerinput"):
        pytest.skip("only a part of the suite was asked for")
    assert len(cases) >= PROMISED


def test_memory_beyond_the_bound_is_an_error() -> None:
    with bounded(memory=1 << 28), pytest.raises(MemoryError):
        bytearray(1 << 29)
    assert len(bytearray(1 << 29)) == 1 << 29  # the bound is gone afterwards


def test_what_does_not_end_is_ended(hostile: Hostile) -> None:
    with pytest.raises(BaseException, match="has not ended"), bounded(seconds=0.05):
        time.sleep(5)


def test_a_write_outside_is_noticed(hostile: Hostile) -> None:
    with pytest.raises(AssertionError, match="outside of"):
        hostile.call((hostile.root / "elsewhere").write_text, "x")
    hostile.call(hostile.out.mkdir)
    hostile.call((hostile.out / "here").write_text, "x")


def test_a_command_is_held_to_an_error_and_a_next_step(hostile: Hostile) -> None:
    assert hostile.refused("runs", "show", "nobody", says="no such run").code == 1
    with pytest.raises(AssertionError):
        hostile.survived("runs", "show", "nobody")


def test_a_command_in_a_process_of_its_own(hostile: Hostile) -> None:
    outcome = hostile.apart("runs", "list")
    assert (outcome.code, outcome.err) == (0, "")
