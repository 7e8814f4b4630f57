"""Each distinct image is read, encoded and stored once, and every sample has what it had alone."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mimic_core.base import files
from mimic_core.base.config import ProbeConfig, RunConfig, SnapshotConfig, SourceConfig
from mimic_core.base.errors import Interrupted, RunError
from mimic_core.base.progress import Silent
from mimic_core.features import filling, loading
from mimic_core.features.encoders import ReferenceEncoder
from mimic_core.features.portions import PoolImages, plan_portions, pool_images
from mimic_core.features.stored import Rows
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.inputs import Inputs, open_inputs
from mimic_core.sources.images import decode_image
from tests.core import checkpoints_on_disk as disk
from tests.core.scoring_pool import caption_of, picture
from tests.core.sources_pools import write_tar

CPU = torch.device("cpu")
IMAGES, CAPTIONS, ROWS = 24, 5, 50
BROKEN = 7


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference, and a table that names 24 images five times over, far from one another."""
    root = tmp_path_factory.mktemp("once")
    disk.write_model(root / "reference")
    (root / "pool").mkdir()
    for number in range(IMAGES):
        data = b"no image" if number == BROKEN else picture(number)
        (root / "pool" / f"{number}.png").write_bytes(data)
    lines = [
        f"{number}.png,{caption_of(100 * number + again)}"
        for again in range(CAPTIONS)
        for number in range(IMAGES)
    ]
    (root / "pool" / "captions.csv").write_text("\n".join(["image,caption", *lines]))
    return root


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three shards: 50, 50 and 20 samples."""
    cut_into_shards(monkeypatch)


def cut_into_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("source", "layouts.table"):
        monkeypatch.setattr(f"mimic_core.sources.{module}.ROWS_PER_SHARD", ROWS)


def inputs_of(home: Path, runs: Path, **changes: Any) -> Inputs:
    values: dict[str, Any] = {
        "source": SourceConfig(path=str(home / "pool")),
        "reference": str(home / "reference"),
        "probe": ProbeConfig(),
    }
    return open_inputs(RunConfig(**{**values, **changes}), runs, CPU, Silent())


@pytest.fixture(scope="module")
def filled(home: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    with pytest.MonkeyPatch.context() as patch:
        cut_into_shards(patch)
        inputs = inputs_of(home, tmp_path_factory.mktemp("runs"))
        inputs.fill(0, Silent())
    return FeatureSet.open(inputs.cached.path)


def alone(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Array rows and CLIP score of each uid, as if no two slices of a shard shared an image."""
    encoder = inputs.encoder
    assert isinstance(encoder, ReferenceEncoder)
    loader = filling.loader_for(inputs.source, inputs.reference)
    found = {}
    for shard in inputs.cached.shards:
        index = inputs.cached.index(shard)
        batch = loader.load(index)
        images, unit = encoder.encode_images(batch.images)
        texts, answers = encoder.encode_texts(batch.tokens, batch.labels)
        rows = {name: value[batch.image_of] for name, value in images.items()} | texts
        clip = (unit[batch.image_of] * answers).sum(1)
        for place, row in enumerate(batch.rows):
            values = {name: value[place].numpy() for name, value in rows.items()}
            found[index["uid"][int(row)]] = values | {"clip_score": clip[place].numpy()}
    return found


def tree(root: Path) -> dict[str, bytes]:
    """All files but the one that holds the pool's place."""
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.is_file() and file.name != "features.json"
    }


def test_every_sample_has_to_the_bit_what_it_had_when_images_were_read_again(
    filled: FeatureSet, home: Path, tmp_path: Path
) -> None:
    truth = alone(inputs_of(home, tmp_path))
    assert filled.samples["uid"].to_list() == list(truth)
    assert len(truth) == (IMAGES - 1) * CAPTIONS
    for name in filled.info["arrays"]:
        expected = np.stack([values[name] for values in truth.values()])
        assert np.array_equal(filled.array(name).read(), expected), name
        some = np.array([114, 3, 77, 3])
        assert np.array_equal(filled.array(name).take(some), expected[some]), name
        assert np.array_equal(Rows(filled, name, CPU).take(some).numpy(), expected[some]), name
    clip = [float(values["clip_score"]) for values in truth.values()]
    assert filled.samples["clip_score"].to_list() == clip
    assert filled.samples["width"].unique().to_list() == [20]
    assert filled.samples["height"].unique().to_list() == [24]


def test_each_image_is_stored_once_over_all_shards(filled: FeatureSet) -> None:
    stored = filled.array("image_features").stored
    assert len(stored) == IMAGES - 1
    assert len(filled.array("image_features")) == (IMAGES - 1) * CAPTIONS
    assert len(filled.array("text_features").stored) == (IMAGES - 1) * CAPTIONS
    rows = filled.image_rows
    assert rows is not None
    numbers = [int(path.removesuffix(".png")) for path in filled.samples["image_path"]]
    assert rows.tolist() == [number - (number > BROKEN) for number in numbers]


def test_all_captions_of_a_broken_image_are_skipped_with_its_reason(filled: FeatureSet) -> None:
    skipped = filled.skipped
    assert skipped["key"].to_list() == [f"{BROKEN}.png"] * CAPTIONS
    assert skipped["reason"].to_list() == ["corrupt_image"] * CAPTIONS
    assert skipped["detail"].n_unique() == 1
    assert skipped["shard"].n_unique() == 3


def test_each_image_is_decoded_and_encoded_once(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, encoded = [], []

    def decode(data: bytes) -> Any:
        decoded.append(hashlib.sha256(data).hexdigest())
        return decode_image(data)

    def encode(self: ReferenceEncoder, images: Tensor) -> Any:
        encoded.append(len(images))
        return whole(self, images)

    whole = ReferenceEncoder.encode_images
    monkeypatch.setattr(loading, "decode_image", decode)
    monkeypatch.setattr(ReferenceEncoder, "encode_images", encode)
    inputs_of(home, tmp_path).fill(0, Silent())
    broken = hashlib.sha256(b"no image").hexdigest()
    good = [one for one in decoded if one != broken]
    assert sorted(good) == sorted(
        hashlib.sha256(picture(n)).hexdigest() for n in range(IMAGES) if n != BROKEN
    )
    assert encoded == [IMAGES - 1]


class Stop(Silent):
    """Asks to stop at the n-th check."""

    def __init__(self, at: int) -> None:
        self.left = at

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupted_pass_is_resumed_to_the_same_bytes(
    at: int, filled: FeatureSet, home: Path, tmp_path: Path
) -> None:
    begun = inputs_of(home, tmp_path)
    with pytest.raises(Interrupted):
        begun.fill(0, Stop(at))
    assert sum(begun.cached.has_shard(shard) for shard in begun.cached.shards) == at
    again = inputs_of(home, tmp_path)
    again.fill(0, Silent())
    assert tree(again.cached.path) == tree(filled.path)


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_a_shard_that_was_deleted_is_made_again_to_the_same_bytes(
    shard: int, filled: FeatureSet, home: Path, tmp_path: Path
) -> None:
    shutil.copytree(filled.path, tmp_path / "features" / filled.id)
    inputs = inputs_of(home, tmp_path)
    assert inputs.cached.complete
    name = inputs.cached.shards[shard]
    (inputs.cached.path / "samples" / f"{name}.parquet").unlink()
    inputs.fill(0, Silent())
    assert tree(inputs.cached.path) == tree(filled.path)


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(
    filled: FeatureSet, home: Path, tmp_path: Path
) -> None:
    inputs = inputs_of(home, tmp_path)
    inputs.fill(2, Silent())
    assert tree(inputs.cached.path) == tree(filled.path)


def test_tangents_of_shared_images_are_stored_once_too(home: Path, tmp_path: Path) -> None:
    inputs = inputs_of(home, tmp_path, probe=None, snapshot=SnapshotConfig())
    inputs.fill(0, Silent())
    assert inputs.tangents is not None
    tangents = FeatureSet.open(inputs.tangents.path)
    assert len(tangents.array("image_tangent").stored) == IMAGES - 1
    assert tangents.samples["uid"].equals(FeatureSet.open(inputs.cached.path).samples["uid"])
    assert not list(tangents.path.glob("arrays/*carried*"))


# --- by content ---


@pytest.mark.parametrize(
    ("lists", "rows", "skipped"),
    [
        pytest.param(([0, 1, 2], [0, 1, 2], [3, 0, 1]), [0, 1, 2, 0, 1, 2, 3, 0, 1], 0, id="all"),
        pytest.param(([BROKEN], [1], [BROKEN, 1, 2]), [0, 0, 1], 2, id="beside one without any"),
        pytest.param(([BROKEN], [1, BROKEN]), [0], 2, id="none"),
    ],
)
def test_a_shard_may_have_images_that_earlier_shards_store(
    lists: tuple[list[int], ...], rows: list[int], skipped: int, home: Path, tmp_path: Path
) -> None:
    """Several tables that name the same images, as COCO's years and translations do."""
    pool = tmp_path / "pool"
    for number in {number for some in lists for number in some}:
        data = b"no image" if number == BROKEN else picture(number)
        files.write_bytes(pool / f"{number}.png", data)
    for name, some in zip("abc", lists, strict=False):
        lines = [f"../{number}.png,{caption_of(number)} {name}" for number in some]
        text = "\n".join(["file_name,text", *lines])
        files.write_bytes(pool / name / "metadata.csv", text.encode())
    inputs = inputs_of(home, tmp_path / "runs", source=SourceConfig(path=str(pool)))
    inputs.fill(0, Silent())
    found = FeatureSet.open(inputs.cached.path)
    assert (found.image_rows is None) == (rows == list(range(len(rows))))  # nothing is shared
    assert found.array("image_features").read().shape[0] == len(rows)
    assert found.image_rows is None or found.image_rows.tolist() == rows
    assert len(found.array("image_features").stored) == max(rows) + 1
    assert len(found.skipped) == skipped


def test_equal_bytes_in_one_shard_are_encoded_and_stored_once(home: Path, tmp_path: Path) -> None:
    members = []
    for number in range(90):
        members += [
            (f"{number:03d}.png", picture(number // 5)),
            (f"{number:03d}.txt", caption_of(number).encode()),
        ]
    (tmp_path / "pool").mkdir()
    write_tar(tmp_path / "pool" / "0.tar", members)
    (tmp_path / "reference").symlink_to(home / "reference")
    inputs = inputs_of(tmp_path, tmp_path / "runs")
    inputs.fill(0, Silent())
    features = FeatureSet.open(inputs.cached.path)
    assert features.image_rows is not None
    assert features.image_rows.tolist() == [number // 5 for number in range(90)]
    assert len(features.array("image_features").stored) == 18
    truth = alone(inputs)
    for name in ("image_features", "image_embedding", "text_embedding"):
        expected = np.stack([values[name] for values in truth.values()])
        assert np.array_equal(features.array(name).read(), expected), name


# --- sets of earlier versions ---


def as_before(features: FeatureSet, shard: str) -> None:
    """Rewrite a finished shard as earlier versions did: a row of each array for each sample."""
    samples = features.finished(shard)
    rows = np.flatnonzero(features.samples["shard"] == shard)
    for name in features.info["arrays"]:
        whole = features.array(name).take(rows)
        assert len(whole) == len(samples)
        np.save(features.array_file(shard, name), whole)
    for name in ("image_of", "carried"):
        features.array_file(shard, name).unlink(missing_ok=True)


def test_a_set_of_an_earlier_version_is_read_and_an_unfinished_one_is_finished(
    filled: FeatureSet, home: Path, tmp_path: Path
) -> None:
    shutil.copytree(filled.path, tmp_path / "features" / filled.id)
    path = tmp_path / "features" / filled.id
    name = filled.shards[0]
    for shard in filled.shards[1:]:  # what later shards refer to is no longer in the first
        (path / "samples" / f"{shard}.parquet").unlink()
    shutil.copytree(filled.path, tmp_path / "whole")
    before = FeatureSet.open(tmp_path / "whole")
    as_before(before, name)
    for array in [*filled.info["arrays"], "image_of", "carried"]:
        old, new = (root / "arrays" / f"{name}.{array}.npy" for root in (before.path, path))
        new.unlink(missing_ok=True)
        if old.exists():
            shutil.copy(old, new)
    inputs = inputs_of(home, tmp_path)
    inputs.fill(0, Silent())
    found = FeatureSet.open(path)
    assert found.samples.equals(filled.samples)
    assert len(found.array("image_features").stored) > IMAGES
    for array in filled.info["arrays"]:
        assert np.array_equal(found.array(array).read(), filled.array(array).read()), array


@pytest.mark.parametrize(
    "damage", [lambda a: a[:-1], lambda a: a[:, :1], lambda a: a + 9, lambda a: a.astype(float)]
)
def test_a_damaged_reference_to_images_is_refused_with_its_file(
    damage: Any, filled: FeatureSet, tmp_path: Path
) -> None:
    path = tmp_path / "features" / filled.id
    shutil.copytree(filled.path, path)
    file = path / "arrays" / f"{filled.shards[1]}.image_of.npy"
    np.save(file, damage(np.load(file)))
    with pytest.raises(RunError) as caught:
        FeatureSet.open(path).array("image_features")
    assert file.name in caught.value.problem
    assert f"{filled.shards[1]}.parquet" in caught.value.next_step


def test_an_array_of_images_without_its_reference_is_refused(
    filled: FeatureSet, tmp_path: Path
) -> None:
    path = tmp_path / "features" / filled.id
    shutil.copytree(filled.path, path)
    (path / "arrays" / f"{filled.shards[0]}.image_of.npy").unlink()
    with pytest.raises(RunError, match="does not fit its samples"):
        FeatureSet.open(path).array("image_features")


# --- small parts ---


def test_the_first_sample_with_an_image_has_it() -> None:
    images = PoolImages(np.array([0, 1, 0, 3, 1, 1, 3]), np.array([0, 3, 3, 5, 7]))
    assert images.own(0).tolist() == [True, True, False]
    assert images.own(1).tolist() == []
    assert images.own(2).tolist() == [True, False]
    assert images.own(3).tolist() == [False, False]
    assert images.carried.tolist() == [1, 3]
    assert [images.carried_by(k).tolist() for k in range(4)] == [[1], [], [0], []]
    assert [images.shares(k) for k in range(4)] == [True, False, True, True]
    assert images.home(np.array([0, 2, 3, 4, 6])).tolist() == [0, 0, 2, 2, 3]


def test_shards_that_are_kept_apart_have_their_own_images(filled: FeatureSet) -> None:
    images = pool_images(filled)
    assert images.own(0).sum() == IMAGES
    assert images.own(1).sum() == images.own(2).sum() == 0
    apart = pool_images(filled, apart={filled.shards[0]})
    assert apart.own(0).all()
    assert apart.own(1).sum() == IMAGES
    assert apart.own(2).sum() == 0


def test_portions_name_the_rows_with_a_new_image() -> None:
    own = np.array([True, False, True, True, False])
    plans = plan_portions("a", 5, 2, own)
    assert [(p.start, p.stop, p.last_of_shard) for p in plans] == [
        (0, 2, False),
        (2, 4, False),
        (4, 5, True),
    ]
    assert [None if p.images is None else p.images.tolist() for p in plans] == [[0], [2, 3], []]


def test_features_do_not_depend_on_what_else_is_in_the_forward_pass(
    home: Path, tmp_path: Path
) -> None:
    module = inputs_of(home, tmp_path).encoder
    assert isinstance(module, ReferenceEncoder)
    images = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    arrays, unit = module.encode_images(images)
    others = torch.cat([images[:16], torch.zeros(48, 3, 16, 16)])
    for some in (images[:16], images[:33], others):
        found, close = module.encode_images(some)
        assert torch.equal(close[:16], unit[:16])
        assert all(torch.equal(found[name][:16], arrays[name][:16]) for name in arrays)
