"""Progress on the terminal, its figures, and the flag that a signal sets."""

from __future__ import annotations

import io
import os
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mimic_core.base import progress as meter
from mimic_core.base.errors import Interrupted
from mimic_core.base.progress import duration
from mimic_core.cli.terminal import (
    BarProgress,
    PlainProgress,
    StopFlag,
    stop_on_signals,
    terminal_progress,
)


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def text_console(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, force_terminal=terminal, width=100, legacy_windows=False), written


def test_units_of_an_earlier_try_count_as_done_but_not_in_the_rate() -> None:
    phase = meter.begin("read", 100, "samples", done=40, now=10.0)
    assert (phase.rate(15.0), phase.remaining(15.0)) == (None, None)
    phase.advance(20, skipped=3)
    assert (phase.done, phase.skipped) == (60, 3)
    assert phase.rate(15.0) == 4.0
    assert phase.remaining(15.0) == 10.0


@given(done=st.integers(0, 1_000), count=st.integers(1, 1_000), seconds=st.floats(0.001, 1e6))
def test_what_remains_takes_the_rate_times_the_units_left(
    done: int, count: int, seconds: float
) -> None:
    phase = meter.begin("read", 3_000, "samples", done=done, now=0.0)
    phase.advance(count)
    rate, remaining = phase.rate(seconds), phase.remaining(seconds)
    assert rate is not None
    assert remaining is not None
    assert rate * remaining == pytest.approx(3_000 - done - count)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (61.0, "1 min 01 s"),
        (3_600.0, "1 h 00 min"),
        (7_384.0, "2 h 03 min"),
    ],
)
def test_durations_are_short(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


def test_plain_lines_come_at_the_start_every_few_seconds_and_at_the_end() -> None:
    console, written = text_console()
    clock = Clock()
    with PlainProgress(StopFlag(), console, clock=clock) as progress:
        progress.phase("images", 1_000, done=200, unit="samples")
        clock.now = 4.0
        progress.advance(100)
        clock.now = 8.0
        progress.advance(300, skipped=2)
        clock.now = 9.0
        progress.advance(100)
        progress.note("the [reference] was read")
        clock.now = 10.0
        progress.advance(300)
        progress.phase("scores", 5, unit="epochs")
    assert written.getvalue().splitlines() == [
        "images: 1,000 samples, 200 already done",
        "images: 600/1,000 samples, 50.0/s, 8 s left, 2 skipped",
        "note: the [reference] was read",
        "images: 1,000/1,000 samples, 80.0/s, 2 skipped",
        "scores: 5 epochs",
        "scores: 0/5 epochs, - left",
    ]


def test_bars_show_the_same_figures_and_keep_notes_in_full() -> None:
    console, written = text_console(terminal=True)
    clock = Clock()
    with BarProgress(StopFlag(), console, clock=clock) as progress:
        progress.phase("images", 10)
        clock.now = 2.0
        progress.advance(4, skipped=1)
        progress.note("a [note]")
    said = written.getvalue()
    assert "4/10" in said
    assert "samples, 2.0/s, 3 s left, 1 skipped" in said
    assert "note: a [note]" in said


def test_bars_are_drawn_on_a_terminal_only() -> None:
    assert isinstance(terminal_progress(StopFlag(), text_console()[0]), PlainProgress)
    assert isinstance(terminal_progress(StopFlag(), text_console(terminal=True)[0]), BarProgress)


@pytest.mark.parametrize("kind", [PlainProgress, BarProgress])
def test_a_set_flag_interrupts_at_the_next_check(
    kind: type[PlainProgress | BarProgress],
) -> None:
    stop = StopFlag()
    progress = kind(stop, text_console()[0])
    progress.check()
    stop.set()
    with pytest.raises(Interrupted):
        progress.check()


def wait_for(stop: StopFlag) -> None:
    end = time.monotonic() + 30
    while not stop:
        assert time.monotonic() < end, "the signal has not arrived"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag_and_all_is_as_before_afterwards(number: signal.Signals) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    with stop_on_signals() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        wait_for(stop)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == blocked


def test_a_second_interrupt_kills_at_once() -> None:
    killed: list[int] = []
    with stop_on_signals(kill=killed.append) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(stop)
        assert killed == []
        os.kill(os.getpid(), signal.SIGINT)
        end = time.monotonic() + 30
        while not killed and time.monotonic() < end:
            time.sleep(0.01)
    assert killed == [130]
