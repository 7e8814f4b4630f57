"""A pool that goes away, or changes, while it is read: no skips, a message, the same bytes later.

What is lost is the place of the files: a share, a disk. One file that cannot be read among others
that can is a skip as ever.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.utils.data import Dataset

from mimic_core.base.config import ProbeConfig, RunConfig, SourceConfig
from mimic_core.base.errors import MimicError, RunError, SourceError
from mimic_core.base.progress import Silent
from mimic_core.features.loading import LoadedBatch, load_batches
from mimic_core.runs.run import Run, open_run
from mimic_core.scoring.pipeline import score_pool
from tests.core import checkpoints_on_disk as disk
from tests.core.scoring_pool import write_shard
from tests.core.sources_pools import tree_bytes

SHARDS = 4
EACH = 6  # samples of a shard


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference model, and a run of a whole pool in ``whole``."""
    root = tmp_path_factory.mktemp("home")
    disk.write_model(root / "reference")
    _score(root, _write(root / "pool"), root / "whole")
    return root


def _write(pool: Path, *, first: int = 0) -> Path:
    for shard in range(SHARDS):
        numbers = range(first + shard * EACH, first + (shard + 1) * EACH)
        write_shard(pool / f"{shard}.tar", [*numbers])
    return pool


def _score(home: Path, pool: Path, out: Path, **options: Any) -> Run:
    config = RunConfig(
        source=SourceConfig(path=str(pool)),
        reference=str(home / "reference"),
        probe=ProbeConfig(epochs=1, batch_size=8),
    )
    return score_pool(config, runs_root=out, device="cpu", workers=0, **options)


class _At(Silent):
    """Does something when a number of shards has been read, or while the pool is indexed."""

    def __init__(
        self, act: Callable[[], object], *, shards: int = 2, phase: str = "images"
    ) -> None:
        self._act, self._left, self._phase, self._now = act, shards, phase, ""

    def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
        self._now = name

    def check(self) -> None:
        if self._now == self._phase:
            self._left -= 1
            if self._left == 0:
                self._act()


def _same_features(ours: Path, whole: Path) -> None:
    """Same measurements, skips and scores; where the pool lies may differ."""
    found, expected = tree_bytes(ours), tree_bytes(whole)
    assert sorted(found) == sorted(expected)
    for name in expected:
        if not name.endswith(".json"):
            assert found[name] == expected[name], name


def _unfinished(out: Path) -> Run:
    (path,) = [one.parent for one in out.glob("*/run.json")]
    run = open_run(path)
    assert not run.done
    assert not list(run.features.path.glob("skipped/*")) or all(
        pl.read_parquet(path).is_empty() for path in run.features.path.glob("skipped/*.parquet")
    )
    return run


# --- the place is away ---


@pytest.fixture
def share(home: Path, tmp_path: Path) -> Iterator[Path]:
    """The pool as a mounted folder; skips where that is not allowed."""
    place = tmp_path / "pool"
    place.mkdir()
    if not _system("mount", "--bind", home / "pool", place):
        pytest.skip("only root may mount a folder")
    yield place
    _system("umount", "-l", place)


def _system(command: str, *arguments: str | Path) -> bool:
    program = shutil.which(command)
    if program is None:
        return False
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, check=False)
    return done.returncode == 0


def test_a_share_that_is_unmounted_in_mid_read_is_no_reason_to_skip(
    home: Path, tmp_path: Path, share: Path
) -> None:
    out = tmp_path / "runs"
    lost = _At(lambda: _system("umount", "-l", share))
    with pytest.raises(SourceError, match="cannot be read any more") as caught:
        _score(home, share, out, progress=lost)
    assert "run the same command again" in caught.value.next_step
    assert 0 < sum(map(_unfinished(out).features.has_shard, map(str, range(SHARDS)))) < SHARDS
    assert _system("mount", "--bind", home / "pool", share)
    assert _score(home, share, out).done
    _same_features(out, home / "whole")


def test_a_share_that_is_unmounted_while_it_is_indexed_leaves_no_index(
    home: Path, tmp_path: Path, share: Path
) -> None:
    lost = _At(lambda: _system("umount", "-l", share), phase="index")
    with pytest.raises(SourceError, match="cannot be read any more"):
        _score(home, share, tmp_path / "runs", progress=lost)
    assert not [*tmp_path.glob("runs/**/*.parquet"), *tmp_path.glob("runs/*/features.json")]


@pytest.mark.parametrize(
    ("said", "phase"),
    [  # of EIO, one damaged shard is a skip while the pool is indexed
        *[(said, "index") for said in (errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)],
        *[(said, "images") for said in (errno.ESTALE, errno.EIO)],
    ],
)
def test_a_system_that_says_the_place_is_away_is_believed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: int, phase: str
) -> None:
    pool = Path(shutil.copytree(home / "pool", tmp_path / "pool"))
    usual, gone = Path.open, []

    def failing(path: Path, *arguments: Any, **named: Any) -> Any:
        if gone and path.parent == pool:
            raise OSError(said, os.strerror(said), str(path))
        return usual(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", failing)
    out = tmp_path / "runs"
    with pytest.raises(SourceError, match=os.strerror(said)):
        _score(home, pool, out, progress=_At(lambda: gone.append(1), phase=phase))
    gone.clear()
    assert _score(home, pool, out).done
    _same_features(out, home / "whole")


def test_one_image_on_a_bad_sector_is_a_skip(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Path(shutil.copytree(home / "pool", tmp_path / "pool"))
    usual, gone = Path.open, []

    def failing(path: Path, *arguments: Any, **named: Any) -> Any:
        if gone and path.name == "2.tar":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return usual(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", failing)
    back = _At(gone.clear, shards=3)  # the pool is compared with its index at the end

    def lose() -> None:
        gone.append(1)

    run = _score(home, pool, tmp_path / "runs", progress=_Both(_At(lose, shards=1), back))
    assert run.done
    assert run.features.skipped["reason"].to_list() == ["missing_image"] * EACH
    assert "Input/output error" in run.features.skipped["detail"][0]


class _Both(Silent):
    def __init__(self, *each: Silent) -> None:
        self._each = each

    def phase(self, name: str, total: int, **more: Any) -> None:
        for one in self._each:
            one.phase(name, total, **more)

    def check(self) -> None:
        for one in self._each:
            one.check()


# --- the pool changes ---


def test_a_pool_that_is_written_while_it_is_read_makes_no_run(home: Path, tmp_path: Path) -> None:
    pool, out = Path(shutil.copytree(home / "pool", tmp_path / "pool")), tmp_path / "runs"
    with pytest.raises(SourceError, match="has changed while its images were read") as caught:
        _score(home, pool, out, progress=_At(lambda: _write(pool, first=100)))
    assert "wait until nothing writes there" in caught.value.next_step
    run = _unfinished(out)
    assert not any(map(run.features.has_shard, run.features.shards))
    assert _score(home, pool, out).id != run.id
    shutil.rmtree(pool)
    shutil.copytree(home / "pool", pool)
    assert _score(home, pool, out).id == run.id


def test_a_shard_that_is_removed_while_the_pool_is_read_makes_no_run(
    home: Path, tmp_path: Path
) -> None:
    pool = Path(shutil.copytree(home / "pool", tmp_path / "pool"))
    with pytest.raises(SourceError, match="has changed while its images were read"):
        _score(home, pool, tmp_path / "runs", progress=_At((pool / "3.tar").unlink))


# --- errors of image readers ---


def test_an_error_passes_whole_from_process_to_process() -> None:
    error = RunError("it is wrong", got=["a"], allowed="b", next_step="do c")
    found = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(found), str(found), found.args) == (RunError, str(error), error.args)
    assert found.__dict__ == error.__dict__


class _Refusing(Dataset[LoadedBatch]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, number: int) -> LoadedBatch:
        raise RunError("it is wrong", got=number, next_step="do c")


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_error_of_an_image_reader_is_raised_as_it_is(workers: int) -> None:
    with pytest.raises(MimicError, match="it is wrong") as caught:
        next(load_batches(_Refusing(), workers=workers, device=torch.device("cpu")))
    assert (type(caught.value), caught.value.got, caught.value.next_step) == (RunError, "0", "do c")
