"""Files that processes keep open, beyond what the tests of their writers show."""

from __future__ import annotations

import os

import pytest

from mimic_core.base import files
from mimic_core.base.errors import RunError

resource = pytest.importorskip("resource")


@pytest.fixture
def limits() -> object:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_of_open_files_is_raised_as_far_as_needed(limits: tuple[int, int]) -> None:
    hard = limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    files.allow_open_files(500)
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(500)]
    for one in opened:
        os.close(one)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == hard


def test_a_hard_limit_that_is_too_low_is_an_error(
    limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    files.allow_open_files(2000)
    with pytest.raises(RunError, match="so many files open") as caught:
        files.allow_open_files(5000)
    assert "4096" in str(caught.value)
    assert "fewer, larger shards" in str(caught.value)
