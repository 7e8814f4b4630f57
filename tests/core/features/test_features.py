"""Phase 1: what one pass over a pool's images stores, against the model called sample by sample."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from mimic_core.base.config import Precision, ProbeConfig, RunConfig, SnapshotConfig, SourceConfig
from mimic_core.base.errors import Interrupted, RunError
from mimic_core.base.progress import Silent
from mimic_core.features import filling as features
from mimic_core.features.loading import default_workers
from mimic_core.features.portions import plan_portions
from mimic_core.models.load import load_model
from mimic_core.models.preprocessing import image_transform
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.inputs import Inputs, open_inputs
from tests.core import checkpoints_on_disk as disk
from tests.core import scoring_pool as pool
from tests.core.scoring_pool import READABLE, REASONS, caption_of, picture, uid_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pool and a reference model."""
    root = tmp_path_factory.mktemp("scoring")
    return pool.write_pool(root / "pool"), disk.write_model(root / "reference")


def _config(places: tuple[Path, Path], **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "source": SourceConfig(path=str(places[0])),
        "reference": str(places[1]),
        "probe": ProbeConfig(),
    }
    return RunConfig(**{**values, **changes})


def _open(config: RunConfig, root: Path) -> Inputs:
    return open_inputs(config, root, CPU, Silent())


def _fill(inputs: Inputs, progress: Any = None) -> None:
    features.fill(
        inputs.cached,
        inputs.targets,
        source=inputs.source,
        model=inputs.reference,
        device=CPU,
        workers=0,
        progress=progress or Silent(),
    )


@pytest.fixture(scope="module")
def filled(places: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """The pool's feature set under the reference."""
    inputs = _open(_config(places), tmp_path_factory.mktemp("runs"))
    _fill(inputs)
    return FeatureSet.open(inputs.cached.path)


def _by_hand(module: nn.Module, preprocess: Any, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Every readable sample on its own: decoded, prepared, tokenised, encoded."""
    found: dict[str, list[torch.Tensor]] = {}
    proj = module.visual.proj  # type: ignore[union-attr]
    for number in READABLE:
        image = preprocess(Image.open(io.BytesIO(picture(number))).convert("RGB"))[None]
        tokens = tokenizer([caption_of(number)])
        with torch.no_grad():
            module.visual.proj = None  # type: ignore[union-attr]
            raw_features = module.visual(image)  # type: ignore[operator]
            module.visual.proj = proj  # type: ignore[union-attr]
            image_embedding = module.encode_image(image, normalize=True)  # type: ignore[operator]
            text_embedding = module.encode_text(tokens, normalize=True)  # type: ignore[operator]
        for name, value in (
            ("image_features", raw_features),
            ("image_embedding", image_embedding),
            ("text_embedding", text_embedding),
            ("clip_score", (image_embedding * text_embedding).sum(1)),
        ):
            found.setdefault(name, []).append(value[0])
    return {name: torch.stack(values) for name, values in found.items()}


# --- what is stored ---


def test_arrays_are_the_models_own_outputs_row_by_row(
    filled: FeatureSet, places: tuple[Path, Path]
) -> None:
    loaded = load_model(str(places[1]))
    truth = _by_hand(loaded.module, image_transform(loaded.preprocessing), loaded.tokenizer)
    assert filled.samples["uid"].to_list() == [uid_of(n) for n in READABLE]
    for name in ("image_features", "image_embedding", "text_embedding"):
        ours = filled.array(name).read()
        assert ours.dtype == np.float16
        np.testing.assert_allclose(ours, truth[name].numpy(), rtol=2e-3, atol=2e-4)
    clip_scores = filled.samples["clip_score"].to_numpy()
    assert clip_scores.dtype == np.float32
    # computed before rounding to float16: closer than float16's 5e-4
    np.testing.assert_allclose(clip_scores, truth["clip_score"].numpy(), atol=2e-6)


def test_text_features_times_projection_are_the_text_embeddings(
    filled: FeatureSet, places: tuple[Path, Path]
) -> None:
    weight = load_model(str(places[1])).module.text_projection.detach()  # type: ignore[union-attr, operator]
    raw = torch.from_numpy(filled.array("text_features").read()).float() @ weight
    stored = torch.from_numpy(filled.array("text_embedding").read()).float()
    torch.testing.assert_close(F.normalize(raw, dim=1), stored, rtol=0, atol=2e-3)


def test_samples_carry_what_was_measured_and_the_users_columns(filled: FeatureSet) -> None:
    samples = filled.samples
    assert samples["width"].unique().to_list() == [20]
    assert samples["height"].unique().to_list() == [24]
    assert samples["number"].to_list() == READABLE
    assert samples["caption"].to_list() == [caption_of(n) for n in READABLE]
    assert samples["caption_length"].to_list() == [len(caption_of(n)) for n in READABLE]
    # three words and a number of one or two digits, with start and end
    assert set(samples["caption_tokens"].to_list()) <= {6, 7}
    assert samples["clip_score"].null_count() == 0


def test_every_unusable_sample_is_skipped_with_its_reason(filled: FeatureSet) -> None:
    skipped = {int(row["key"]): row for row in filled.skipped.iter_rows(named=True)}
    assert {number: row["reason"] for number, row in skipped.items()} == REASONS
    assert skipped[80]["shard"] == "00002"
    assert all(row["detail"] for row in skipped.values())
    assert filled.samples.height + filled.skipped.height == 80


def test_a_shard_without_a_readable_image_is_empty_and_finished(filled: FeatureSet) -> None:
    assert filled.complete
    empty = pl.read_parquet(filled.path / "samples" / "00002.parquet")
    assert empty.height == 0
    other = pl.read_parquet(filled.path / "samples" / "00000.parquet")
    assert empty.schema == other.schema
    assert len(filled.array("image_features")) == len(READABLE)


def test_long_captions_are_counted_before_truncation(places: tuple[Path, Path]) -> None:
    from mimic_core.features.loading import count_tokens

    tokenizer = load_model(str(places[1])).tokenizer
    assert count_tokens(tokenizer, "a cat") == 4
    assert count_tokens(tokenizer, "cat " * 100) == 102
    assert tokenizer(["cat " * 100]).shape == (1, 16)


# --- unit of work, resume ---


class _Stop(Silent):
    """Asks to stop at the n-th check."""

    def __init__(self, at: int) -> None:
        self.left = at

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted


class _Watch(Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int, int]] = []
        self.done = self.skips = 0

    def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
        self.phases.append((name, total, done))

    def advance(self, count: int, *, skipped: int = 0) -> None:
        self.done += count
        self.skips += skipped


def _bytes(root: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


def test_progress_counts_every_indexed_sample_once(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    watch = _Watch()
    _fill(_open(_config(places), tmp_path), watch)
    assert watch.phases == [("images", 77, 0)]  # 80 less those the index skips already
    assert (watch.done, watch.skips) == (77, 4)


@pytest.mark.parametrize("at", range(5))
def test_an_interrupted_pass_is_resumed_to_the_same_bytes(
    at: int, filled: FeatureSet, places: tuple[Path, Path], tmp_path: Path
) -> None:
    config = _config(places)
    stopped = False
    try:
        _fill(_open(config, tmp_path), _Stop(at))
    except Interrupted:
        stopped = True
    assert stopped == (at < 4)  # 2 + 1 + 1 batches
    again, watch = _open(config, tmp_path), _Watch()
    finished = [s for s in again.cached.shards if again.cached.has_shard(s)]
    _fill(again, watch)
    assert watch.phases[0][2] == sum(again.cached.info["shards"][s] for s in finished)
    assert again.cached.id == filled.id
    expected, ours = _bytes(filled.path), _bytes(again.cached.path)
    del expected["features.json"], ours["features.json"]  # holds the pool's place
    assert ours == expected


def test_a_second_run_reads_no_image(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(_open(_config(places), tmp_path))

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a batch was loaded")

    monkeypatch.setattr(features, "load_batches", refuse)
    again = _open(_config(places), tmp_path)
    assert again.cached.complete
    _fill(again)


def test_two_targets_are_filled_in_one_pass_and_only_what_is_missing(
    places: tuple[Path, Path], filled: FeatureSet, tmp_path: Path
) -> None:
    config = _config(places, probe=None, snapshot=SnapshotConfig())
    inputs = _open(config, tmp_path)
    watch = _Watch()
    _fill(inputs, watch)
    assert watch.done == 77
    assert inputs.tangents is not None
    assert inputs.cached.id == filled.id  # probe and snapshot share the reference's features
    tangents = FeatureSet.open(inputs.tangents.path)
    assert tangents.samples["uid"].equals(filled.samples["uid"])
    assert tangents.array("image_tangent").dtype == np.float32
    stored, own = _bytes(filled.path), _bytes(inputs.cached.path)
    del stored["features.json"], own["features.json"]
    assert stored == own


def test_an_unfinished_set_is_not_read(places: tuple[Path, Path], tmp_path: Path) -> None:
    inputs = _open(_config(places), tmp_path)
    with pytest.raises(Interrupted):
        _fill(inputs, _Stop(2))
    opened = FeatureSet.open(inputs.cached.path)
    assert not opened.complete
    with pytest.raises(RunError, match="unfinished"):
        _ = opened.samples
    with pytest.raises(RunError, match="unfinished"):
        opened.array("image_features")


# --- identity ---


def _names(config: RunConfig, root: Path) -> str:
    return _open(config, root).cached.id


def test_the_set_is_shared_exactly_where_its_content_is_the_same(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    base = _names(_config(places), tmp_path)
    same = [
        _config(places, probe=ProbeConfig(epochs=9, temperature=3.0, side="text")),
        _config(places, probe=None, snapshot=SnapshotConfig(repeats=7)),
    ]
    assert {_names(config, tmp_path) for config in same} == {base}
    part = SourceConfig(path=str(places[0]), sample=10)
    other = disk.write_model(tmp_path / "other", seed=9)
    different = [
        _config(places, precision="bf16"),
        _config(places, preprocess="siglip"),
        _config(places, reference=str(other)),
        _config(places, source=part),
        _config(places, source=part.model_copy(update={"sample_seed": 1})),
    ]
    names = {_names(config, tmp_path) for config in different}
    assert len(names) == 5
    assert base not in names


def test_the_set_does_not_depend_on_where_the_pool_lies(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    moved = pool.write_pool(tmp_path / "elsewhere" / "pool")
    config = _config(places, source=SourceConfig(path=str(moved)))
    assert _names(config, tmp_path) == _names(_config(places), tmp_path)


def test_a_changed_image_is_another_set(places: tuple[Path, Path], tmp_path: Path) -> None:
    changed = pool.write_pool(tmp_path / "pool")
    pool.write_shard(changed / "00000.tar", [*range(69), 500])
    config = _config(places, source=SourceConfig(path=str(changed)))
    assert _names(config, tmp_path) != _names(_config(places), tmp_path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_close_and_still_finite(
    precision: Precision, places: tuple[Path, Path], filled: FeatureSet, tmp_path: Path
) -> None:
    inputs = _open(_config(places, precision=precision), tmp_path)
    _fill(inputs)
    ours = FeatureSet.open(inputs.cached.path).array("image_embedding").read()
    exact = filled.array("image_embedding").read()
    assert float(np.abs(ours.astype(np.float32) - exact.astype(np.float32)).max()) < 0.03


# --- small parts ---


def test_batches_are_slices_of_one_shard() -> None:
    plans = plan_portions("a", 130, 64)
    assert [(p.start, p.stop, p.last_of_shard) for p in plans] == [
        (0, 64, False),
        (64, 128, False),
        (128, 130, True),
    ]
    assert [(p.start, p.stop, p.last_of_shard) for p in plan_portions("a", 128, 64)] == [
        (0, 64, False),
        (64, 128, True),
    ]
    assert [(p.start, p.stop, p.last_of_shard) for p in plan_portions("a", 0, 64)] == [(0, 0, True)]


def test_small_pools_need_no_worker() -> None:
    assert default_workers(100) == 0
    assert 1 <= default_workers(1_000_000) <= 32


@pytest.mark.parametrize(("cores", "sharing", "workers"), [(64, 1, 32), (64, 8, 8), (4, 8, 1)])
def test_processes_that_load_together_share_the_cores(
    cores: int, sharing: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores), raising=False)
    assert default_workers(1_000_000, sharing=sharing) == workers
