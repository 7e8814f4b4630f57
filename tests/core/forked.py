"""Processes that start with torch loaded: forks of one server that has imported it once.

They begin as empty as spawned ones, with what they are given pickled, but in milliseconds and not
in seconds. One test of each kind still starts its processes as the product does.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from mimic_core.features import loading
from mimic_core.jobs.processes import environment

LOADED = ["mimic_core.scoring.pipeline", "mimic_core.scoring.training.train"]


def context() -> ForkServerContext:
    """The way to start such processes; the first use starts the server."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(LOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        forkserver.ensure_running()
    return found


@pytest.fixture
def forked_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading workers are forks of the server."""
    real = loading.DataLoader

    def loader(*given: Any, multiprocessing_context: str | None, **options: Any) -> Any:
        start = None if multiprocessing_context is None else context()
        return real(*given, multiprocessing_context=start, **options)

    monkeypatch.setattr(loading, "DataLoader", loader)


def start(
    target: Callable[..., None], *given: Any, log: Path, **variables: str
) -> ForkServerProcess:
    """Call ``target`` in a process with these environment variables; it prints into ``log``."""
    process = context().Process(target=_logged, args=(target, given, log, variables))
    process.start()
    return process


def _logged(
    target: Callable[..., None], given: tuple[Any, ...], log: Path, variables: Mapping[str, str]
) -> None:
    os.environ.update(variables)
    with log.open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        target(*given)
    except BaseException:
        traceback.print_exc()
        raise
