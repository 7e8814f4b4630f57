"""Faults: files gone or changed, two drivers, a kill, a clock that jumps (disks: ``test_disks``).

Nothing is half-written, a message says what to do, and running it again ends with the same bytes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimic_core.base import files
from mimic_core.base.config import RunConfig, SourceConfig
from mimic_core.base.errors import RunError
from mimic_core.base.schema import Locator
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.processes import environment
from mimic_core.jobs.record import Report
from mimic_core.jobs.store import JobStore
from mimic_core.runs import lock
from mimic_core.runs.lock import only_driver
from mimic_core.runs.run import list_runs
from tests.fakes import fake_run
from tests.hostile.runner import Hostile

# --- writing ---


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})

    def half(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, half)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("number", range(3))
def test_a_killed_writer_leaves_the_old_file_whole(tmp_path: Path, number: int) -> None:
    """Killed at moments that differ from run to run; a reader sees one whole version or another."""
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"0" * 100_000)
    script = (
        "import sys; from pathlib import Path; from mimic_core.base import files\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for digit in b'123456789':\n"
        "        files.write_bytes(Path(sys.argv[1]), bytes([digit]) * 100_000)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], env=environment(), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.05 * number + 0.01 * (os.getpid() % 7))
    process.kill()
    process.communicate()
    data = path.read_bytes()
    assert len(data) == 100_000
    assert len(set(data)) == 1


# --- two drivers ---

HOLD = """
import sys, time
from pathlib import Path
from mimic_core.runs.lock import only_driver
from mimic_core.runs.run import list_runs
with only_driver(Path(sys.argv[1]), "a-run"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that drives ``a-run``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_driver_is_told_who_is_at_work(
    tmp_path: Path, holder: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(RunError, match="another process is working on this run") as caught:
        _drive(tmp_path)
    assert f"process {holder.pid} on {socket.gethostname()}" in str(caught.value)
    _drive(tmp_path, "another-run")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    _drive(tmp_path)  # the system has dropped the lock with its holder
    assert not (tmp_path / lock.FOLDER).exists()


def test_the_lock_of_another_machine_is_kept_while_it_is_touched(tmp_path: Path) -> None:
    path = tmp_path / lock.FOLDER / "a-run.json"
    files.write_json(path, {"pid": 1, "host": "elsewhere"})
    with pytest.raises(RunError, match="process 1 on elsewhere"):
        _drive(tmp_path)
    now = path.stat().st_mtime
    os.utime(path, (now - lock.STALE_SECONDS + 5, now - lock.STALE_SECONDS + 5))
    with pytest.raises(RunError):
        _drive(tmp_path)
    os.utime(path, (now - lock.STALE_SECONDS - 5, now - lock.STALE_SECONDS - 5))
    _drive(tmp_path)


@pytest.mark.parametrize("text", ["", "null", "[1]", "{", '{"host": 3}'])
def test_a_damaged_lock_file_holds_nobody_up(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "STALE_SECONDS", -1.0)
    path = tmp_path / lock.FOLDER / "a-run.json"
    files.write_bytes(path, text.encode())
    _drive(tmp_path)


def test_a_clock_that_jumps_does_not_steal_a_lock(
    tmp_path: Path, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for jump in (-1e6, 1e6):
        monkeypatch.setattr(time, "time", lambda jump=jump: 1.8e9 + jump)
        with pytest.raises(RunError):
            _drive(tmp_path)


def _drive(root: Path, run_id: str = "a-run") -> None:
    with only_driver(root, run_id):
        pass


@pytest.mark.parametrize("jump", [-1e9, -3600.0, 3600.0, 1e9])
def test_the_job_table_survives_a_clock_that_jumps(tmp_path: Path, jump: float) -> None:
    times = [1.8e9]
    store = JobStore(tmp_path / "jobs.sqlite", clock=lambda: times[0])
    config = RunConfig.parse({"source": SourceConfig(path="p"), "reference": "r", "probe": {}})
    job, new = store.enqueue(config, JobOptions(), tmp_path)
    assert new
    times[0] += jump
    again, _ = store.enqueue(config, JobOptions(), tmp_path)
    assert again.job_id == job.job_id
    assert [one.job_id for one in store.jobs()] == [job.job_id]


@pytest.mark.parametrize("jump", [-1e9, -3600.0, 3600.0, 1e9])
def test_a_worker_that_is_dead_is_known_to_be_after_the_clock_has_jumped(
    tmp_path: Path, jump: float
) -> None:
    times = [1.8e9]
    store = JobStore(tmp_path / "jobs.sqlite", clock=lambda: times[0])
    source = SourceConfig(path="p")
    config = RunConfig.parse({"source": source, "reference": "r", "probe": {}})
    job = store.claim(store.enqueue(config, JobOptions(), tmp_path)[0].job_id)
    assert job is not None
    times[0] += jump
    assert store.job(job.job_id).status == "stale"
    assert not store.beat(job, Report())  # it was alive all the same: the next beat says so
    assert store.job(job.job_id).status == "running"


def test_runs_of_a_machine_whose_clock_has_jumped_are_all_listed(tmp_path: Path) -> None:
    for seed, at in enumerate(["1970-01-01T00:00:00+00:00", "2200-01-01T00:00:00+00:00"]):
        fake_run(tmp_path, n=4, seed=seed, images=False).update(created_at=at)
    found = list_runs(tmp_path)
    assert [run.record.created_at[:4] for run in found.runs] == ["2200", "1970"]
    assert found.damaged == ()


# --- the pool between scoring and looking ---


@pytest.mark.parametrize("fate", ["gone", "empty", "cut", "a folder", "a pipe", "other"])
def test_a_pool_that_has_changed_since_it_was_scored(
    hostile: Hostile, tmp_path: Path, fate: str
) -> None:
    from app.drawing.pictures import picture

    found = fake_run(tmp_path / "runs", n=6)
    row = found.features.samples.row(0, named=True)
    names = ("kind", "path", "offset", "length", "member")
    place = Locator(*(row[f"image_{name}"] for name in names))
    root = found.features.source_root()
    shard = root / place.path
    assert picture(root, place, side=50).data is not None
    data = shard.read_bytes()
    shard.unlink()
    if fate == "empty":
        shard.write_bytes(b"")
    if fate == "cut":
        shard.write_bytes(data[: place.offset + 5])
    if fate == "a folder":
        shard.mkdir()
    if fate == "a pipe":
        os.mkfifo(shard)
    if fate == "other":
        shard.write_bytes(bytes(len(data)))
    shown = hostile.call(picture, root, place, side=50)
    assert (shown.data, bool(shown.reason)) == (None, True)
    hostile.survived("runs", "show", found.path)  # scores need no images
    hostile.survived("export", found.path, "--format", "csv", "--out", "out/e.csv")


# --- numbers out of range ---

OPTIONS = [
    ("--workers", "-1"), ("--workers", "99999999"), ("--workers", "1.5"), ("--seed", "-1"),
    ("--seed", str(2**64)), ("--seed", "9" * 400), ("--epochs", "0"), ("--epochs", "-1"),
    ("--batch-size", "0"), ("--batch-size", "1"), ("--temperature", "0"), ("--temperature", "nan"),
    ("--temperature", "-1"), ("--learning-rate", "inf"), ("--sample", "0"), ("--sample", "-5"),
    ("--method", "magic"), ("--side", "left"), ("--precision", "fp8"), ("--mode", ""),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), OPTIONS)
def test_options_out_of_range(hostile: Hostile, option: str, value: str) -> None:
    says = option.strip("-").split("-")[0]
    hostile.refused("score", "pool", "--reference", "r", option, value, says=says)
    assert not (hostile.root / "runs").exists()
