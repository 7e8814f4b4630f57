"""Disks that are full or cannot be written, under everything that writes.

Nothing half-written is left that is taken for whole, a message says what to do, and the same
command ends with the same bytes once there is room.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mimic_core.__main__ import main
from mimic_core.base.config import RunConfig, SourceConfig
from mimic_core.base.errors import FilterError, JobError
from mimic_core.filters.library import RecipeLibrary, list_recipes, save_recipe
from mimic_core.filters.recipe import Recipe
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.record import Report
from mimic_core.jobs.store import JobStore
from mimic_core.runs.run import Run
from tests.core import checkpoints_on_disk as disk
from tests.core.scoring_pool import write_shard
from tests.core.sources_pools import tree_bytes
from tests.hostile.runner import Hostile

Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a small disk in memory; skips where that is not allowed."""
    mounted = []

    def make(options: str = "size=64k") -> Path:
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        if not _mount("-t", "tmpfs", "-o", options, "tmpfs", str(place)):
            pytest.skip("only root may mount a small disk")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        assert _run("umount", "-l", str(place))


def _mount(*arguments: str) -> bool:
    return _run("mount", *arguments)


def _run(command: str, *arguments: str) -> bool:
    program = shutil.which(command)
    if program is None:
        return False
    return subprocess.run([program, *arguments], capture_output=True, check=False).returncode == 0


# --- exports and filters ---


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_an_export_onto_a_full_disk(
    hostile: Hostile, run: Run, mount: Mount, file_format: str
) -> None:
    disk = mount("size=4k")
    command = ("export", run.path, "--format", file_format, "--out", disk / f"e.{file_format}")
    outcome = hostile.refused(*command, writes=disk, says="the disk is full")
    assert "free some space" in outcome.err
    assert list(disk.iterdir()) == []


def test_an_export_without_room_for_its_manifest_is_finished_later(
    hostile: Hostile, run: Run, mount: Mount
) -> None:
    disk = mount("nr_inodes=3,size=1m")  # the folder, the draft, and one file
    command = ("export", run.path, "--format", "datacomp", "--out", disk / "e.npy")
    hostile.refused(*command, writes=disk, says="the disk is full")
    assert _mount("-o", "remount,nr_inodes=9", str(disk))
    hostile.survived(*command, writes=disk)
    assert {path.name for path in disk.iterdir()} == {"e.npy", "e.npy.manifest.json"}
    hostile.survived("replay", disk / "e.npy.manifest.json", "--runs", run.path.parent)


@pytest.mark.parametrize("command", ["export", "filter"])
def test_a_disk_that_cannot_be_written(
    hostile: Hostile, run: Run, mount: Mount, command: str
) -> None:
    disk = mount("ro,size=1m")
    (hostile.root / "r.yaml").write_text("conditions: []\n")
    arguments = {
        "export": ("export", run.path, "--format", "csv", "--out", disk / "e.csv"),
        "filter": ("filter", "r.yaml", run.path, "--out", disk / "e.parquet"),
    }[command]
    outcome = hostile.refused(*arguments, writes=disk, says="read-only")
    assert "choose a place that can be written" in outcome.err


# --- scoring ---


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool, a reference model and, once a test has made it, a run of them."""
    home = tmp_path_factory.mktemp("scored")
    for shard in range(3):
        write_shard(home / "pool" / f"{shard}.tar", [*range(20 * shard, 20 * shard + 20)])
    disk.write_model(home / "reference")
    return home


def _score(home: Path, out: Path) -> int:
    """Its exit code. Loading a model writes to the system's folder for temporary files too."""
    settings = ("--device", "cpu", "--workers", "0", "--epochs", "2", "--batch-size", "16")
    pool, reference = str(home / "pool"), str(home / "reference")
    return main(["score", pool, "--reference", reference, "--out", str(out), *settings])


def _numbers(root: Path) -> dict[str, bytes]:
    """All files of runs but for those that name times and places."""
    found = tree_bytes(root)
    return {name: data for name, data in found.items() if not name.endswith(".json")}


@pytest.mark.parametrize("size", ["8k", "36k", "52k", "72k", "88k"])
def test_scoring_onto_a_full_disk_goes_on_when_there_is_room(
    mount: Mount, scored: Path, size: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if not (scored / "whole").exists():
        assert _score(scored, scored / "whole") == 0
    disk = mount(f"size={size}")
    assert _score(scored, disk) == 1
    said = capfd.readouterr().err
    assert "No space left" in said
    assert "free some space" in said
    assert "Traceback" not in said
    assert not list(disk.rglob("*.tmp"))
    for record in disk.glob("*/run.json"):
        assert json.loads(record.read_text())["status"] != "done"
    assert _mount("-o", "remount,size=4m", str(disk))
    assert _score(scored, disk) == 0
    assert _numbers(disk) == _numbers(scored / "whole")


def test_scoring_onto_a_disk_that_cannot_be_written_is_refused(
    mount: Mount, scored: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _score(scored, mount("ro,size=1m")) == 1
    said = capfd.readouterr().err
    assert "Read-only file system" in said
    assert "choose a place that can be written" in said


# --- recipes and jobs ---


@pytest.mark.parametrize(
    ("options", "says"),
    [("nr_inodes=2", "free some space"), ("ro", "choose a place that can be written")],
)
def test_a_recipe_that_cannot_be_saved(mount: Mount, options: str, says: str) -> None:
    root = mount(options)
    with pytest.raises(FilterError, match="the recipe cannot be written") as caught:
        save_recipe(root, "mine", Recipe())
    assert says in caught.value.next_step
    assert list_recipes(root) == RecipeLibrary((), ())


def _config() -> RunConfig:
    source = SourceConfig(path="pool")
    return RunConfig.parse({"source": source, "reference": "r", "probe": {}})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("size=4k", "free some space"),
        ("nr_inodes=1", "let the user that runs this read and write there"),
        ("ro", "let the user that runs this read and write there"),
    ],
)
def test_a_job_that_cannot_be_stored(mount: Mount, options: str, says: str, tmp_path: Path) -> None:
    store = JobStore(mount(options) / "jobs.sqlite")
    with pytest.raises(JobError, match="the job table cannot be used") as caught:
        store.enqueue(_config(), JobOptions(), tmp_path)
    assert says in caught.value.next_step


def test_a_job_whose_disk_fills_up_can_be_resumed(mount: Mount, tmp_path: Path) -> None:
    place = mount("size=400k")
    times = [1.8e9]
    store = JobStore(place / "jobs.sqlite", clock=lambda: times[0])
    job, _ = store.enqueue(_config(), JobOptions(), tmp_path)
    claimed = store.claim(job.job_id)
    assert claimed is not None
    filler = place / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(1 << 20))

    def beat(times: int) -> None:  # the log that SQLite writes ahead has some room left
        for number in range(times):
            store.beat(claimed, Report(phase="images", done=number, notes=("n" * 4000,)))

    with pytest.raises(JobError, match=r"full|disk I/O error") as caught:
        beat(200)
    assert "space" in caught.value.next_step
    filler.unlink()
    times[0] += 60
    assert store.job(job.job_id).status == "stale"
    _, is_new = store.enqueue(_config(), JobOptions(), tmp_path)
    assert is_new


def test_a_damaged_job_table_says_how_to_go_on(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    store.path.write_bytes(b"no database" * 99)
    with pytest.raises(JobError, match="not a database") as caught:
        store.jobs()
    assert caught.value.next_step == f"delete {store.path}; runs are kept"
