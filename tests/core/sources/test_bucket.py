"""Pools in object storage: what lies there is read as if it lay in a folder, or the run ends."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from mimic_core.base import remote
from mimic_core.base.config import SourceConfig
from mimic_core.base.errors import RemoteError, SourceError
from mimic_core.base.remote import RemotePath
from mimic_core.base.schema import Sample
from mimic_core.features.loading import SampleLoader, load_batches
from mimic_core.features.portions import PortionDataset, plan_portions
from mimic_core.models.preprocessing import image_transform
from mimic_core.runs.featureset import FeatureSet, locate
from mimic_core.sources.index import build_index, reading
from mimic_core.sources.opening import open_source
from mimic_core.sources.path import require_pools
from mimic_core.sources.reading import read_image
from mimic_core.sources.source import Source
from tests.core.buckets import Bucket, bucket, s3_server
from tests.core.scoring_pool import picture, write_class_folders, write_pool
from tests.core.sources_pools import (
    image_bytes,
    indexed,
    items,
    opened,
    tree_bytes,
    triple,
    write_files,
    write_image_rows,
    write_tar,
    write_zip,
)

__all__ = ["bucket", "s3_server"]  # fixtures
PREPROCESSING = {
    "size": 16, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic",
    "mode": "RGB", "resize_mode": "squash", "fill_color": 0,
}  # fmt: skip


def at(url: str, **config: object) -> Source:
    return open_source(SourceConfig.parse({"path": url, **config}))


def shards(folder: Path) -> Path:
    return write_pool(folder)


def table(folder: Path) -> Path:
    files = {"a.png": image_bytes("red"), "deep/b.png": image_bytes("blue"), ".hidden": "x"}
    rows = "image,caption,n\na.png,one,1\ndeep/b.png,two,2\ngone.png,three,3\n"
    return write_files(folder, {**files, "x.csv": rows, "notes.md": "read me"})


def beside(folder: Path) -> Path:
    own = {"run.json": '{"schema_version": 2}', "scores/a.txt": "x"}
    files = {"a.png": image_bytes("red"), "a.txt": "one", "b.png": image_bytes("blue")}
    return write_files(folder, {**files, "b.txt": " ", **{f"r/{one}": x for one, x in own.items()}})


def embedded(folder: Path) -> Path:
    rows = [{"image": picture(n), "caption": f"caption {n}", "n": n} for n in range(5)]
    return write_image_rows(folder / "a.parquet", rows).parent


@pytest.mark.parametrize("write", [shards, table, beside, embedded, write_class_folders])
def test_a_pool_is_the_same_in_a_bucket(
    bucket: Bucket, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    local = opened(write(tmp_path / "pool"))
    there = at(bucket.put(tmp_path / "pool", "some/pool"))
    assert isinstance(there.root, RemotePath)
    assert (there.layout, there.shards, there.task) == (local.layout, local.shards, local.task)
    assert there.fingerprint() == local.fingerprint()  # so features are found again
    indexed(there, tmp_path / "there")
    indexed(local, tmp_path / "local")
    assert tree_bytes(tmp_path / "there") == tree_bytes(tmp_path / "local")
    for one, other in zip(items(there), items(local), strict=True):
        assert one == other
        if isinstance(one, Sample):
            assert read_image(there.root, one.image) == read_image(local.root, one.image)
    config = SourceConfig(path=str(there.root))
    words = reading(there, build_index(there, config, tmp_path / "again"))
    assert words.startswith(f"read as {local.layout}")


def test_a_single_object_is_a_pool_and_files_beside_it_are_none(
    bucket: Bucket, tmp_path: Path
) -> None:
    write_tar(tmp_path / "p" / "0.tar", triple("a", "one"))
    write_tar(tmp_path / "p" / "1.tar", triple("b", "two"))
    url = bucket.put(tmp_path / "p", "p")
    assert [one.key for one in items(at(f"{url}/1.tar"))] == ["b"]
    with pytest.raises(SourceError, match="no such file or folder"):
        require_pools(SourceConfig(path=f"{url}/2.tar"))


def test_of_a_large_tar_a_sample_is_read_by_ranges(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [one for n in range(40) for one in triple(f"{n:03d}", "one", image=picture(n))]
    path = write_tar(tmp_path / "p" / "0.tar", [*members, ("end.bin", bytes(400_000))])
    monkeypatch.setattr(remote, "BLOCK", 4096)
    source = at(bucket.put(tmp_path / "p", "p"))
    samples = [one for one in items(source) if isinstance(one, Sample)]
    for file in bucket.cache.rglob("*"):
        if file.is_file():
            file.unlink()
    bucket.asked.clear()
    for one in samples[::20]:
        assert read_image(source.root, one.image) == picture(int(one.key))
    asked = sum(stop - start for _, start, stop in bucket.asked)
    assert 0 < asked < path.stat().st_size / 20


@pytest.mark.parametrize("name", ["pool.zip", "pool.tar.gz"])
def test_what_would_have_to_be_unpacked_is_refused_and_loses_no_row(
    bucket: Bucket, tmp_path: Path, name: str
) -> None:
    if name.endswith("zip"):
        path = write_zip(tmp_path / name, {"a.png": image_bytes(), "a.txt": "one"})
    else:
        path = tmp_path / name
        write_tar(tmp_path / "pool.tar", triple("a", "one"))
        path.write_bytes(gzip.compress((tmp_path / "pool.tar").read_bytes()))
    url = bucket.put(path, "p")
    with pytest.raises(RemoteError, match="own disk only"):
        items(at(url))


def test_a_connection_that_breaks_while_a_pool_is_indexed_is_no_damaged_shard(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK", 4096)
    monkeypatch.setattr(remote, "AHEAD", 1)
    local = write_pool(tmp_path / "pool")
    source = at(bucket.put(local, "p"))
    whole, _ = indexed(source, tmp_path / "whole")
    for file in [path for path in bucket.cache.rglob("*") if path.is_file()]:
        file.unlink()
    left = [3]

    def fail() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionResetError("by peer")

    bucket.fault = fail
    with pytest.raises(RemoteError, match="does not answer"):
        indexed(source, tmp_path / "broken")
    bucket.fault = lambda: None
    again, _ = indexed(source, tmp_path / "broken")
    assert again.equals(whole)
    remote._KNOWN.clear()
    bucket.remove("p/00001.tar")
    with pytest.raises(RemoteError, match="no longer where it was"):
        read_image(source.root, next(x for x in items(opened(local)) if x.shard == "00001").image)  # type: ignore[union-attr]


def test_a_broken_connection_ends_the_pass_over_the_images_and_skips_none(
    bucket: Bucket, tmp_path: Path
) -> None:
    local = write_pool(tmp_path / "pool")
    source = at(bucket.put(local, "p"))
    frame, _ = indexed(source, tmp_path / "index")
    count = len(frame.filter(pl.col("shard") == "00000"))
    loader = SampleLoader(source.root, image_transform(PREPROCESSING), None)
    plans = plan_portions("00000", count, 64)
    dataset = PortionDataset(plans, tmp_path / "index" / "index", loader)
    expected = PortionDataset(
        plans,
        tmp_path / "index" / "index",
        SampleLoader(local, image_transform(PREPROCESSING), None),
    )
    for file in [path for path in bucket.cache.rglob("*") if path.is_file()]:
        file.unlink()

    def fail() -> None:
        raise TimeoutError("silence")

    bucket.fault = fail
    with pytest.raises(RemoteError, match="silence"):
        list(load_batches(dataset, workers=0, device=torch.device("cpu")))
    bucket.fault = lambda: None
    for plan in range(len(plans)):
        one, other = dataset[plan], expected[plan]
        assert torch.equal(one.images, other.images)
        assert one.found == other.found


def test_a_feature_set_finds_its_pool_in_the_bucket_again(tmp_path: Path) -> None:
    root = RemotePath.of("s3://bucket/pool")
    path = tmp_path / "runs" / "features" / "x"
    features = FeatureSet(path, {"location": locate(root, path)})
    assert features.source_root() == root


def test_pools_of_one_bucket_are_scored_together_and_of_two_places_not(
    bucket: Bucket, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / name / "0.tar", triple(name, "one", image=image_bytes("red")))
    urls = [bucket.put(tmp_path / name, f"deep/{name}") for name in ("a", "b")]
    both = open_source(SourceConfig.parse({"paths": urls}))
    found = items(both)
    assert [(one.key, one.shard) for one in found] == [("a", "a--0"), ("b", "b--0")]
    for one in found:
        assert isinstance(one, Sample)
        assert read_image(both.root, one.image) == image_bytes("red")
        assert read_image(both.root, replace(one.image, length=-1))[:3] == image_bytes("red")[:3]
    with pytest.raises(SourceError, match="pools in different places"):
        open_source(SourceConfig.parse({"paths": [urls[0], str(tmp_path / "b")]}))
