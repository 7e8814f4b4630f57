"""The whole job: equal bytes whatever happens on the way, and errors before the long pass."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from mimic_core.base import files
from mimic_core.base.config import ProbeConfig, RunConfig, SnapshotConfig, SourceConfig
from mimic_core.base.errors import ConfigError, Interrupted, MimicError, ModelError, ScoreError
from mimic_core.base.progress import Silent
from mimic_core.features import filling as features
from mimic_core.mimic import scores as mimic
from mimic_core.mimic.losses import clip_losses
from mimic_core.mimic.scores import mimic_scores, task_vector
from mimic_core.models.layers import reinitialised
from mimic_core.models.load import load_model
from mimic_core.models.preprocessing import image_transform
from mimic_core.runs.run import Run, open_run
from mimic_core.scoring.pipeline import score_pool
from mimic_core.scoring.tuning import tune
from tests.core import checkpoints_on_disk as disk
from tests.core import scoring_pool as pool
from tests.core import tiny
from tests.core.scoring_pool import READABLE, REASONS, caption_of, picture, uid_of
from tests.places import ROOT

PROBE = ProbeConfig(epochs=2, batch_size=16)
SNAPSHOT = SnapshotConfig(batch_size=16, repeats=2)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool, a smaller pool and a reference; runs roots go beside them."""
    root = tmp_path_factory.mktemp("home")
    pool.write_pool(root / "pool")
    pool.write_shard(root / "small" / "00000.tar", list(range(100, 112)))
    disk.write_model(root / "reference")
    return root


def _config(home: Path, *, small: bool = False, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "source": SourceConfig(path=str(home / ("small" if small else "pool"))),
        "reference": str(home / "reference"),
    }
    if "snapshot" not in changes:
        values["probe"] = PROBE
    return RunConfig(**{**values, **changes})


def _score(config: RunConfig, root: Path, **options: Any) -> Run:
    return score_pool(config, runs_root=root, device="cpu", **{"workers": 0, **options})


def _content(root: Path) -> dict[str, Any]:
    """All files by relative path; of ``run.json`` what is not a time."""
    found: dict[str, Any] = {}
    for file in sorted(root.rglob("*")):
        if not file.is_file():
            continue
        name = str(file.relative_to(root))
        found[name] = file.read_bytes()
        if file.name == "run.json":
            record = json.loads(found[name])
            for key in ("created_at", "finished_at", "timings"):
                record.pop(key)
            found[name] = record
    return found


def _assert_same(ours: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sorted(ours) == sorted(expected)
    assert [name for name in expected if ours[name] != expected[name]] == []


@pytest.fixture(scope="module")
def probed(home: Path) -> Run:
    """A finished probe run in ``home/runs-probe``."""
    return _score(_config(home), home / "runs-probe")


@pytest.fixture(scope="module")
def snapped(home: Path) -> Run:
    """A finished snapshot run in ``home/runs-snapshot``."""
    return _score(_config(home, snapshot=SNAPSHOT), home / "runs-snapshot")


# --- what a run holds ---


def test_a_probe_run_stores_what_tune_computes(probed: Run) -> None:
    run = open_run(probed.path)
    assert run.done
    assert run.scores().equals(tune(run.features, PROBE))
    record = run.record
    assert (record.samples, record.skipped, record.epochs) == (len(READABLE), len(REASONS), 2)
    assert record.mimic_layers == ("visual.proj",)
    assert record.batch_size == 16
    assert record.preprocessing["mean"] == disk.PREPROCESS["mean"]
    assert len(record.preprocessing_sha256) == 64
    assert record.decoder.startswith("Pillow")
    assert 0 <= record.self_check["relative_difference"] < 1e-4
    assert record.direction_check is not None
    assert len(record.direction_check.segment) == 5


def test_every_unusable_sample_is_in_skipped_parquet(probed: Run) -> None:
    skipped = pl.read_parquet(probed.path / "skipped.parquet")
    assert {int(k): r for k, r in skipped.select("key", "reason").iter_rows()} == REASONS
    assert not set(skipped["key"]) & set(probed.features.samples["key"])


def test_a_snapshot_run_equals_forward_mode_on_the_same_batches(snapped: Run, home: Path) -> None:
    run = open_run(snapped.path)
    assert run.record.mimic_layers == (tiny.IMAGE_MLP,)
    loaded = load_model(str(home / "reference"))
    model = reinitialised(loaded.module, (tiny.IMAGE_MLP,), seed=0)
    vector = task_vector(model, loaded.module, [tiny.IMAGE_MLP])
    transform = image_transform(loaded.preprocessing)
    numbers = {uid_of(n): n for n in READABLE}
    scores = run.scores().with_columns(number=pl.col("uid").replace_strict(numbers))
    assert scores.group_by("epoch").len()["len"].to_list() == [len(READABLE)] * 2
    for (_, step), rows in scores.group_by("epoch", "step", maintain_order=True):
        if step == scores["step"].max():
            continue  # filled from the head of the order: which rows is not stored
        assert rows.height == 16
        batch = rows["number"].to_list()
        images = torch.stack(
            [transform(Image.open(io.BytesIO(picture(n))).convert("RGB")) for n in batch]
        )
        tokens = loaded.tokenizer([caption_of(n) for n in batch])
        losses, expected = mimic_scores(
            model,
            vector,
            lambda images=images, tokens=tokens: clip_losses(  # type: ignore[misc]
                *model(images, tokens)
            ),
        )
        scale = float(expected.abs().max())
        np.testing.assert_allclose(rows["mimic_score"], expected, rtol=0, atol=1e-5 * scale)
        np.testing.assert_allclose(rows["loss"], losses, rtol=1e-5, atol=1e-5)


def test_a_finished_run_is_left_alone(probed: Run, home: Path) -> None:
    before = {f: f.stat().st_mtime_ns for f in (home / "runs-probe").rglob("*")}
    again = _score(_config(home), home / "runs-probe")
    assert again.id == probed.id
    assert {f: f.stat().st_mtime_ns for f in (home / "runs-probe").rglob("*")} == before


def test_probe_and_snapshot_share_the_features_of_the_reference(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _score(_config(home, small=True), tmp_path)
    second = _score(_config(home, small=True, probe=PROBE.model_copy(update={"seed": 1})), tmp_path)
    assert first.record.feature_set == second.record.feature_set
    assert first.id != second.id
    third = _score(_config(home, small=True, snapshot=SNAPSHOT), tmp_path)
    assert third.record.feature_set == first.record.feature_set
    assert third.record.tangent_set is not None


def test_run_ids_differ_with_every_setting_of_the_scorer(home: Path, tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"probe": PROBE},
        {"probe": PROBE.model_copy(update={"temperature": 0.06})},
        {"probe": PROBE.model_copy(update={"epochs": 3})},
        {"probe": PROBE.model_copy(update={"side": "text"})},
        {"probe": PROBE.model_copy(update={"weighting": "uniform"})},
        {"snapshot": SNAPSHOT},
        {"snapshot": SNAPSHOT.model_copy(update={"mimic_layers": ("visual.proj",)})},
        {"snapshot": SNAPSHOT.model_copy(update={"seed": 3})},
        {"preprocess": "siglip"},
    ]
    ids = [_score(_config(home, small=True, **change), tmp_path).id for change in changes]
    assert len(set(ids)) == len(ids)


def test_sweep_adds_the_candidates_to_a_finished_run(home: Path, tmp_path: Path) -> None:
    plain = _score(_config(home, small=True), tmp_path)
    before = plain.scores()
    swept = _score(_config(home, small=True), tmp_path, sweep=True)
    assert swept.id == plain.id
    assert swept.scores().equals(before)
    check = swept.record.direction_check
    assert check is not None
    assert ("visual.proj",) in [entry.mimic_layers for entry in check.sweep]


# --- architectures in probe mode ---


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet", "visual.attnpool.c_proj.weight"),
        ("siglip", "visual.head.proj.weight"),
        ("timm-classifier", "visual.trunk.head.fc.weight"),
    ],
)
def test_probe_mode_works_for_every_tower_with_a_projection(
    name: str, layer: str, home: Path, tmp_path: Path
) -> None:
    reference = disk.write_model(tmp_path / name, name)
    run = _score(_config(home, small=True, reference=str(reference)), tmp_path / "runs")
    assert run.record.mimic_layers == (layer,)
    assert run.scores()["mimic_score"].is_finite().all()
    assert run.scores().equals(tune(run.features, PROBE))


def test_text_side_and_cosine_probes_run(home: Path, tmp_path: Path) -> None:
    for change in ({"side": "text"}, {"method": "cos"}, {"side": "text", "method": "cos"}):
        run = _score(_config(home, small=True, probe=PROBE.model_copy(update=change)), tmp_path)
        assert run.done
        if "method" in change:
            assert float(run.scores()["mimic_score"].abs().max()) <= 1 + 1e-5  # type: ignore[arg-type]


def test_a_tower_without_projection_is_refused_before_any_image_is_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = disk.write_model(tmp_path / "mlp", "timm-mlp")
    monkeypatch.setattr(features, "load_batches", _never)
    with pytest.raises(ModelError, match="--mode snapshot"):
        _score(_config(home, small=True, reference=str(reference)), tmp_path / "runs")
    monkeypatch.undo()
    text = PROBE.model_copy(update={"side": "text"})
    config = _config(home, small=True, reference=str(reference), probe=text)
    assert _score(config, tmp_path / "runs").record.mimic_layers == ("text_projection",)
    snapshot = _config(home, small=True, reference=str(reference), snapshot=SNAPSHOT)
    assert _score(snapshot, tmp_path / "runs").done


# --- snapshot pairs ---


def _second(home: Path, name: str, *, seed: int = 1, kind: str = "vit") -> str:
    folder = home / name
    return str(folder if folder.exists() else disk.write_model(folder, kind, seed))


def test_a_pair_of_checkpoints_is_scored_on_the_layers_named(home: Path, tmp_path: Path) -> None:
    layers = (tiny.IMAGE_MLP, "text_projection", "logit_scale")
    snapshot = SnapshotConfig(
        model=_second(home, "model"), mimic_layers=layers, batch_size=12, repeats=1
    )
    run = _score(_config(home, small=True, snapshot=snapshot), tmp_path)
    assert run.record.mimic_layers == layers
    model, reference = (load_model(str(home / n)).module for n in ("model", "reference"))
    loaded = load_model(str(home / "reference"))
    transform = image_transform(loaded.preprocessing)
    numbers = {uid_of(n): n for n in range(100, 112)}
    batch = [numbers[uid] for uid in run.scores()["uid"]]
    images = torch.stack([transform(Image.open(io.BytesIO(picture(n)))) for n in batch])
    tokens = loaded.tokenizer([caption_of(n) for n in batch])
    _, expected = mimic_scores(
        model,
        task_vector(model, reference, layers),
        lambda: clip_losses(*model(images, tokens)),
    )
    scale = float(expected.abs().max())
    np.testing.assert_allclose(run.scores()["mimic_score"], expected, rtol=0, atol=1e-5 * scale)


def _never(*args: object, **kwargs: object) -> None:
    raise AssertionError("the long pass has begun")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "same"}, ScoreError, "equal on the mimic layers"),
        ({"model": "deeper"}, ModelError, "differ in architecture"),
        ({"mimic_layers": ("visual.porj",)}, ModelError, "visual.proj"),
        ({"method": "cos"}, ConfigError, "proj"),
        ({"model": "/nowhere"}, ModelError, "/nowhere"),
    ],
)
def test_a_wrong_pair_is_refused_before_the_long_pass(
    change: dict[str, Any],
    error: type[MimicError],
    words: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if change.get("model") == "same":
        change = {"model": str(home / "reference")}
    if change.get("model") == "deeper":
        change = {"model": _second(home, "deeper", kind="deeper-vit")}
    monkeypatch.setattr(features, "load_batches", _never)
    snapshot = SNAPSHOT.model_copy(update=change)
    with pytest.raises(error, match=words):
        _score(_config(home, small=True, snapshot=snapshot), tmp_path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_snapshots_run_or_are_refused_by_name(
    precision: str, home: Path, tmp_path: Path
) -> None:
    config = _config(home, small=True, snapshot=SNAPSHOT, precision=precision)
    try:
        run = _score(config, tmp_path)
    except MimicError as error:
        assert "precision" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert run.scores()["mimic_score"].is_finite().all()


def test_a_cosine_probe_above_the_limit_is_refused_before_the_long_pass(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mimic, "COS_MAX_BATCH", 8)
    monkeypatch.setattr(features, "load_batches", _never)
    probe = PROBE.model_copy(update={"method": "cos"})
    with pytest.raises(MimicError) as caught:
        _score(_config(home, small=True, probe=probe), tmp_path)
    assert "8" in str(caught.value)


def test_a_pool_with_one_readable_sample_is_refused(home: Path, tmp_path: Path) -> None:
    pool.write_shard(tmp_path / "one" / "a.tar", [1, 2], broken={2: "corrupt"})
    for change in ({"probe": PROBE}, {"snapshot": SNAPSHOT}):
        config = _config(home, source=SourceConfig(path=str(tmp_path / "one")), **change)
        with pytest.raises(ScoreError, match="at least 2"):
            _score(config, tmp_path / "runs")


def test_readable_samples_may_lie_anywhere_in_the_pool(home: Path, tmp_path: Path) -> None:
    # one readable sample in each shard, and none at the head of the first
    bad = {n: "corrupt" for n in range(30) if n not in (25, 26)}
    pool.write_shard(tmp_path / "pool" / "a.tar", list(range(26)), broken=bad)
    pool.write_shard(tmp_path / "pool" / "b.tar", [26])
    source = SourceConfig(path=str(tmp_path / "pool"))
    for change in ({"probe": PROBE}, {"snapshot": SNAPSHOT}):
        assert _score(_config(home, source=source, **change), tmp_path / "runs").record.samples == 2


@pytest.mark.parametrize("change", [{"probe": PROBE}, {"snapshot": SNAPSHOT}], ids=str)
@pytest.mark.parametrize(("count", "blank"), [(2, False), (60, True)])
def test_a_pool_of_equal_pairs_does_not_fail_the_self_check(
    home: Path, tmp_path: Path, change: dict[str, Any], count: int, blank: bool
) -> None:
    import tarfile

    out = io.BytesIO()
    Image.new("RGB", (24, 24), "white").save(out, "PNG")
    image = out.getvalue() if blank else picture(1)
    (tmp_path / "pool").mkdir()
    with tarfile.open(tmp_path / "pool" / "a.tar", "w") as archive:
        for number in range(count):
            for suffix, data in (("png", image), ("txt", b"a red boat")):
                member = tarfile.TarInfo(f"{number:04d}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    config = _config(home, source=SourceConfig(path=str(tmp_path / "pool")), **change)
    notes: list[str] = []
    progress = Silent()
    progress.note = notes.append  # type: ignore[method-assign]
    assert _score(config, tmp_path / "runs", progress=progress).done
    assert any("nothing to check them against" in note for note in notes)


def test_the_layers_direction_is_not_hidden_by_a_failed_self_check(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mimic_core.scoring import snapshot as score

    monkeypatch.setattr(score, "self_check", lambda *_: 0.5)
    with pytest.raises(ScoreError) as caught:
        _score(_config(home, small=True, snapshot=SNAPSHOT), tmp_path)
    assert "self-check" in str(caught.value)
    assert "got 0.5" in str(caught.value)


# --- the same bytes, whatever happens on the way ---


def test_two_runs_end_with_the_same_bytes(probed: Run, snapped: Run, home: Path) -> None:
    _score(_config(home), home / "runs-again")
    _assert_same(_content(home / "runs-again"), _content(home / "runs-probe"))
    _score(_config(home, snapshot=SNAPSHOT), home / "runs-snapshot-again")
    _assert_same(_content(home / "runs-snapshot-again"), _content(home / "runs-snapshot"))


class _Stop(Silent):
    def __init__(self, at: int) -> None:
        self.left, self.indexing = at, False

    def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
        self.indexing = name == "index"  # nothing of it is kept

    def check(self) -> None:
        self.left -= not self.indexing
        if self.left < 0 and not self.indexing:
            raise Interrupted


@pytest.mark.parametrize(
    ("mode", "at"), [("probe", 3), ("probe", 8), ("snapshot", 2), ("snapshot", 11)]
)
def test_an_interrupted_run_resumes_to_the_same_bytes(
    mode: str, at: int, probed: Run, snapped: Run, home: Path
) -> None:
    config = _config(home) if mode == "probe" else _config(home, snapshot=SNAPSHOT)
    root = home / f"runs-stopped-{mode}-{at}"
    with pytest.raises(Interrupted):
        _score(config, root, progress=_Stop(at))
    (name,) = [path.parent.name for path in root.glob("*/run.json")]
    assert not open_run(root / name).done
    assert _score(config, root).done
    _assert_same(_content(root), _content(home / f"runs-{mode}"))


class _Crash(BaseException):
    """The machine stops."""


def _crash_at(monkeypatch: pytest.MonkeyPatch, number: int, *, after: bool) -> list[int]:
    """Make the ``number``-th file write the last: before it begins, or just after its rename."""
    calls: list[int] = []
    write: Callable[..., None] = files.write_atomic

    def crashing(path: Path, content: Any) -> None:
        calls.append(1)
        if len(calls) - 1 == number and not after:
            raise _Crash
        write(path, content)
        if len(calls) - 1 == number:
            raise _Crash

    monkeypatch.setattr(files, "write_atomic", crashing)
    return calls


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [0, 4, 7, 10, 13, 20, 27, 30])
def test_a_crash_at_any_file_is_resumed_to_the_same_bytes(
    number: int, after: bool, probed: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = home / f"runs-crash-{number}-{after}"
    calls = _crash_at(monkeypatch, number, after=after)
    with pytest.raises(_Crash):
        _score(_config(home), root)
    assert len(calls) == number + 1
    monkeypatch.undo()
    assert _score(_config(home), root).done
    _assert_same(_content(root), _content(home / "runs-probe"))


@pytest.mark.slow
def test_workers_change_no_byte(probed: Run, home: Path) -> None:
    _score(_config(home), home / "runs-workers", workers=2)
    _assert_same(_content(home / "runs-workers"), _content(home / "runs-probe"))


_KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import open_clip, timm, torch  # imported once; every child is a fork of this process
from mimic_core.scoring.pipeline import score_pool
from mimic_core.base.config import RunConfig
config, root, kills, seconds = json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), None
draw = random.Random(0)
def child(where):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            score_pool(RunConfig(**config), runs_root=where, device="cpu", workers=0)
            code = 0
        finally:
            os._exit(code)
    return pid
start = time.perf_counter()
assert os.waitpid(child(root / "whole"), 0)[1] == 0
seconds = time.perf_counter() - start
killed, runs = 0, 1
while killed < kills:  # one run is killed again and again; where it ends alive, the next begins
    pid = child(root / f"killed-{runs}")
    time.sleep(draw.uniform(0, seconds))
    os.kill(pid, signal.SIGKILL)
    by_us = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    killed, runs = killed + by_us, runs + (not by_us)
for number in range(1, runs + 1):
    assert os.waitpid(child(root / f"killed-{number}"), 0)[1] == 0
print(runs)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["probe", "snapshot"])
def test_twenty_kills_change_no_byte(mode: str, home: Path) -> None:
    config = _config(home) if mode == "probe" else _config(home, snapshot=SNAPSHOT)
    root = home / f"killed-{mode}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _KILLER, config.model_dump_json(), str(root), "20"],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for number in range(1, int(done.stdout.split()[-1]) + 1):
        killed = root / f"killed-{number}"
        for file in killed.rglob("*.tmp"):
            file.unlink()  # a killed process cannot tidy up; names with its id are never read
        for draft in killed.rglob(".index-draft-*"):
            shutil.rmtree(draft)
        _assert_same(_content(killed), _content(root / "whole"))
