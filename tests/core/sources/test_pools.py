"""Several pools as one: whose each sample is, whose uid, and that no order matters."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from mimic_core.base.config import SourceConfig
from mimic_core.base.errors import ConfigError, SourceError
from mimic_core.base.identity import digest
from mimic_core.base.schema import SAMPLE_COLUMNS
from mimic_core.features.loading import locator_of
from mimic_core.sources.index import build_index, reading
from mimic_core.sources.opening import open_source
from mimic_core.sources.path import require_pools
from mimic_core.sources.pools import pool_names
from mimic_core.sources.reading import read_image
from mimic_core.sources.source import Source
from tests.core.sources_pools import (
    image_bytes,
    indexed,
    items,
    opened,
    tree_bytes,
    triple,
    write_files,
    write_tar,
    write_zip,
)

RED, BLUE, GREEN = (image_bytes(colour) for colour in ("red", "blue", "green"))


def together(*paths: Path, **config: object) -> Source:
    return open_source(SourceConfig.parse({"paths": [str(one) for one in paths], **config}))


@pytest.fixture
def pools(tmp_path: Path) -> list[Path]:
    """Shards, captions in a table, and a zip; the first two share a key and a caption."""
    shards = tmp_path / "shards"
    write_tar(
        shards / "00000.tar",
        [*triple("a", "one", image=RED), *triple("b", "two"), *triple("c", " ")],
    )
    table = tmp_path / "deep" / "er" / "table"
    write_files(
        table, {"1.png": BLUE, "2.png": b"", "x.csv": "image,caption,pool\n1.png,one,old\n"}
    )
    zipped = write_zip(tmp_path / "zipped.zip", {"z.png": GREEN, "z.txt": "three"})
    return [shards, table, zipped]


def test_every_sample_of_every_pool_is_there_with_its_pool(pools: list[Path]) -> None:
    source = together(*pools)
    found = items(source)
    assert sorted((one.shard, one.key) for one in found) == [
        ("shards--00000", "a"),
        ("shards--00000", "b"),
        ("shards--00000", "c"),
        ("table--x-00000", "1.png"),
        ("zipped--images-00000", "z"),
    ]
    alone = {one.key: one for pool in pools for one in items(opened(pool))}
    images = {"a": RED, "1.png": BLUE, "z": GREEN}
    for one in found:
        if one.key == "c":
            assert (one.reason, one.detail) == (alone["c"].reason, alone["c"].detail)  # type: ignore[union-attr]
            continue
        before = alone[one.key]
        assert (one.uid, one.caption) == (before.uid, before.caption)  # type: ignore[union-attr]
        if one.key in images:
            assert read_image(source.root, one.image) == images[one.key]  # type: ignore[union-attr]
    metas = {one.key: one.meta for one in found if one.key != "c"}  # type: ignore[union-attr]
    assert metas["1.png"] == {"pool": "table", "source_pool": "old"}
    assert [metas[key]["pool"] for key in ("a", "b", "z")] == ["shards", "shards", "zipped.zip"]


def test_no_order_of_the_pools_changes_anything(pools: list[Path], tmp_path: Path) -> None:
    trees = []
    for number, order in enumerate(itertools.permutations(pools)):
        source = together(*order)
        indexed(source, tmp_path / f"index-{number}")
        trees.append(
            (source.fingerprint(), source.shards, tree_bytes(tmp_path / f"index-{number}"))
        )
    assert all(tree == trees[0] for tree in trees)
    configs = [
        SourceConfig.parse({"path": "b", "also": ("c", "a")}),
        SourceConfig.parse({"paths": ["c", "b", "a"]}),
    ]
    assert configs[0] == configs[1]
    assert configs[0].paths == ("a", "b", "c")
    assert [one.path for one in configs[0].each()] == ["a", "b", "c"]


def test_uids_that_are_made_from_names_are_kept_apart_and_others_stay(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tar(
            tmp_path / name / "00000.tar",
            [*triple("same", "one"), *triple(f"only {name}", "one")],
        )
    source = together(tmp_path / "a", tmp_path / "b")
    samples, skipped = indexed(source, tmp_path / "index")
    own = {one.key: one.uid for one in items(opened(tmp_path / "a"))}  # type: ignore[union-attr]
    found = {(row["pool"], row["key"]): row["uid"] for row in samples.iter_rows(named=True)}
    assert found["a", "only a"] == own["only a"]
    assert found["a", "same"] == digest(["a", own["same"]], length=32)
    assert found["b", "same"] == digest(["b", own["same"]], length=32)
    assert len(set(found.values())) == len(found) == 4
    assert skipped.is_empty()
    (tmp_path / "c").mkdir()
    (tmp_path / "b").rename(tmp_path / "c" / "b")  # they may lie anywhere
    moved, _ = indexed(together(tmp_path / "c" / "b", tmp_path / "a"), tmp_path / "moved")
    assert moved["uid"].equals(samples["uid"])


def test_a_uid_that_pools_bring_along_is_one_sample(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_tar(tmp_path / name / "0.tar", triple(f"of {name}", "one", {"uid": "7" * 32}))
    samples, skipped = indexed(together(tmp_path / "b", tmp_path / "a"), tmp_path / "index")
    assert samples["key"].to_list() == ["of a"]
    assert skipped.rows() == [
        ("of b", "b--0", "duplicate_uid", f"uid {'7' * 32} belongs to an earlier sample")
    ]


def test_each_pool_says_what_was_read_of_it_and_what_was_not(
    pools: list[Path], tmp_path: Path
) -> None:
    write_files(pools[0], {"notes.md": "read me"})
    source = together(*pools)
    config = SourceConfig.parse({"paths": [str(one) for one in pools]})
    counted = build_index(source, config, tmp_path / "index")
    assert {name: one["samples"] for name, one in counted["pools"].items()} == {
        "shards": 2,
        "table": 1,
        "zipped.zip": 1,
    }
    words = reading(source, counted)
    assert words.startswith("3 pools, 4 samples; shards: read as webdataset: ")
    assert (
        "2 samples, skipped 1 (1 empty_caption), not read: 1 x .md; table: read as folder" in words
    )
    assert "table: read as folder: " in words
    assert words.endswith("1 samples, not read: nothing")


def test_a_sample_is_drawn_from_all_pools_at_once(pools: list[Path], tmp_path: Path) -> None:
    source = together(*pools)
    whole, _ = indexed(source, tmp_path / "whole")
    few, _ = indexed(source, tmp_path / "few", sample=2, sample_seed=1)
    assert len(few) == 2
    assert set(few["uid"]) < set(whole["uid"])
    assert list(SAMPLE_COLUMNS) == few.columns[: len(SAMPLE_COLUMNS)]
    for row in few.iter_rows(named=True):
        assert read_image(source.root, locator_of(row))


def test_pools_of_captions_and_of_labels_are_not_scored_together(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "0.tar", triple("a", "one"))
    write_tar(tmp_path / "b" / "0.tar", [("a.png", RED), ("a.cls", b"cat")])
    with pytest.raises(SourceError, match=r"a: captions, .*b: labels"):
        together(tmp_path / "a", tmp_path / "b")


def test_pools_have_the_shortest_names_that_tell_them_apart(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("x/shards", "y/shards", "other", "y/x/shards")]
    assert list(pool_names(paths).values()) == [
        f"{tmp_path.name}/x/shards",
        "y/shards",
        "other",
        "y/x/shards",
    ]
    with pytest.raises(SourceError, match="one pool is given twice"):
        pool_names([str(tmp_path), f"{tmp_path}/."])


def test_paths_are_refused_that_are_none_or_twice_the_same(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^setting SourceConfig: the pool .* is given twice"):
        SourceConfig.parse({"paths": ["a", "a"]})
    with pytest.raises(ConfigError, match="either paths, or path and also"):
        SourceConfig.parse({"paths": ["a", "b"], "path": "c"})
    with pytest.raises(ConfigError, match="path"):
        SourceConfig.parse({"also": ["a"]})
    (tmp_path / "a").mkdir()
    with pytest.raises(SourceError, match="gone"):
        require_pools(SourceConfig(path=str(tmp_path / "a"), also=(str(tmp_path / "gone"),)))
