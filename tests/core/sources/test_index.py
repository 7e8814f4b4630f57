"""The index: sampling laws, duplicates, columns, and equal bytes for equal pools."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base import draws
from mimic_core.base.config import SourceConfig
from mimic_core.base.errors import Interrupted, SourceError
from mimic_core.base.progress import Silent
from mimic_core.base.schema import SAMPLE_COLUMNS, SKIP_COLUMNS, Locator, Sample, Skip
from mimic_core.sources import index
from mimic_core.sources.index import build_index
from mimic_core.sources.reading import read_image
from mimic_core.sources.source import Notes
from mimic_core.sources.tables import columns
from mimic_core.sources.tables.columns import column, column_dtype, stored_names
from tests.core.sources_pools import (
    image_bytes,
    indexed,
    opened,
    tree_bytes,
    triple,
    write_tar,
)


class ListSource:
    """A pool in memory: shard name -> samples and skips."""

    layout = "webdataset"
    image_column = None
    caption_column = None
    root = Path()

    def __init__(self, content: dict[str, list[Sample | Skip]]) -> None:
        self._content = content
        self.notes = Notes()
        self.parts = {"": self}

    def pool_of(self, _: str) -> str:
        return ""

    @property
    def shards(self) -> tuple[str, ...]:
        return tuple(sorted(self._content))

    def index(self, shard: str) -> Any:
        return iter(self._content[shard])

    def fingerprint(self) -> str:
        return "0" * 64


def sample(uid: int | str, shard: str = "a", **meta: Any) -> Sample:
    """A sample whose other fields follow from its uid."""
    name = uid if isinstance(uid, str) else f"{uid:032x}"
    return Sample(name, f"k{uid}", shard, f"c{uid}", Locator("range", "a.tar", 512, 9), meta)


def pool(*rows: Sample | Skip) -> ListSource:
    """The rows, each in its own shard."""
    content: dict[str, list[Sample | Skip]] = {}
    for row in rows:
        content.setdefault(row.shard, []).append(row)
    return ListSource(content)


def test_tables_have_the_columns_of_the_schema(tmp_path: Path) -> None:
    skip = Skip("k", "a", "missing_image", "why")
    samples, skipped = indexed(pool(sample(1), skip, sample(2, "b")), tmp_path)
    assert dict(samples.schema) == SAMPLE_COLUMNS
    assert dict(skipped.schema) == SKIP_COLUMNS
    assert samples.row(0) == (f"{1:032x}", "k1", "a", "c1", None, "range", "a.tar", 512, 9, "")
    assert skipped.rows() == [("k", "a", "missing_image", "why")]
    assert sorted(tree_bytes(tmp_path)) == [
        "index/a.parquet",
        "index/a.skipped.parquet",
        "index/b.parquet",
        "index/b.skipped.parquet",
    ]


def test_a_real_pool_is_read_back_through_its_index(tmp_path: Path) -> None:
    write_tar(tmp_path / "p" / "0.tar", triple("x", "one", {"n": 1}) + triple("y", " "))
    source = opened(tmp_path / "p")
    samples, skipped = indexed(source, tmp_path / "f")
    row = samples.row(0, named=True)
    locator = Locator(
        row["image_kind"],
        row["image_path"],
        row["image_offset"],
        row["image_length"],
        row["image_member"],
    )
    assert read_image(source.root, locator) == image_bytes()
    assert (row["caption"], row["n"]) == ("one", 1)
    assert skipped["reason"].to_list() == ["empty_caption"]


def test_of_equal_uids_the_first_in_shard_and_order_stays(tmp_path: Path) -> None:
    rows = [sample(1, "b"), sample(2, "b"), sample(1, "a"), sample(1, "a"), sample(3, "c")]
    samples, skipped = indexed(pool(*rows), tmp_path)
    assert samples.select("shard", "uid").rows() == [
        ("a", f"{1:032x}"),
        ("b", f"{2:032x}"),
        ("c", f"{3:032x}"),
    ]
    detail = f"uid {1:032x} belongs to an earlier sample"
    assert skipped.rows() == [
        ("k1", "a", "duplicate_uid", detail),
        ("k1", "b", "duplicate_uid", detail),
    ]


@settings(max_examples=30, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 2**128 - 1), unique=True, min_size=1, max_size=30),
    small=st.integers(1, 32),
    more=st.integers(0, 8),
    seed=st.integers(-5, 5),
    deal=st.randoms(use_true_random=False),
)
def test_samples_are_nested_and_do_not_depend_on_shards(
    tmp_path_factory: pytest.TempPathFactory,
    numbers: list[int],
    small: int,
    more: int,
    seed: int,
    deal: Any,
) -> None:
    def drawn(count: int, order: list[int]) -> set[str]:
        source = pool(*(sample(n, deal.choice("abc")) for n in order))
        folder = tmp_path_factory.mktemp("draw")
        frame, _ = indexed(source, folder, sample=count, sample_seed=seed)
        return set(frame["uid"])

    few = drawn(small, numbers)
    shuffled = list(numbers)
    deal.shuffle(shuffled)
    assert drawn(small, shuffled) == few
    assert few <= drawn(small + more, numbers)
    uids = [f"{n:032x}" for n in numbers]
    assert few == {uids[row] for row in draws.order(uids, seed)[:small]}


def test_another_seed_draws_another_sample(tmp_path: Path) -> None:
    source = pool(*(sample(n) for n in range(100)))
    one, _ = indexed(source, tmp_path / "1", sample=10, sample_seed=0)
    two, _ = indexed(source, tmp_path / "2", sample=10, sample_seed=1)
    assert len(one) == len(two) == 10
    assert set(one["uid"]) != set(two["uid"])


def test_duplicates_do_not_count_in_the_draw(tmp_path: Path) -> None:
    rows = [sample(n % 5, "ab"[n % 2]) for n in range(20)]
    samples, skipped = indexed(pool(*rows), tmp_path, sample=5)
    assert sorted(samples["uid"]) == [f"{n:032x}" for n in range(5)]
    assert len(skipped) == 15


def test_shards_without_a_drawn_sample_still_have_their_tables(tmp_path: Path) -> None:
    source = pool(*(sample(n, f"s{n}", note="x") for n in range(6)))
    samples, _ = indexed(source, tmp_path, sample=1)
    assert len(samples) == 1
    assert len(tree_bytes(tmp_path)) == 12
    assert samples.schema["note"] == pl.String


def test_equal_pools_give_equal_bytes_and_leave_no_draft(tmp_path: Path) -> None:
    write_tar(tmp_path / "p" / "0.tar", triple("x", "one", {"n": 1}) + triple("y", "two"))
    write_tar(tmp_path / "p" / "1.tar", triple("x", "one", {"z": 1.5, "n": True}))
    for name in ("1", "2"):
        build_index(opened(tmp_path / "p"), SourceConfig(path="any"), tmp_path / name)
    assert tree_bytes(tmp_path / "1") == tree_bytes(tmp_path / "2")
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["index"]


def test_an_interrupted_index_is_written_again_whole(tmp_path: Path) -> None:
    class Breaking(ListSource):
        def index(self, shard: str) -> Any:
            yield from super().index(shard)
            if shard == "b":
                raise KeyboardInterrupt

    rows = [sample(1), sample(2, "b")]
    with pytest.raises(KeyboardInterrupt):
        build_index(Breaking({"a": rows[:1], "b": rows[1:]}), SourceConfig(path="x"), tmp_path)
    assert tree_bytes(tmp_path) == {}
    assert len(indexed(pool(*rows), tmp_path)[0]) == 2


def test_indexing_says_how_far_it_is_and_can_be_stopped(tmp_path: Path) -> None:
    class Stopping(Silent):
        def __init__(self) -> None:
            self.said: list[object] = []

        def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
            self.said.append((name, total, done, unit))

        def advance(self, count: int, *, skipped: int = 0) -> None:
            self.said.append(count)

        def check(self) -> None:
            if self.said[-1] == 1:  # one shard is done
                raise Interrupted("stopped")

    progress = Stopping()
    source = ListSource({"a": [sample(1)], "b": [sample(2, "b")]})
    with pytest.raises(Interrupted):
        build_index(source, SourceConfig(path="x"), tmp_path, progress)
    assert progress.said == [("index", 2, 0, "shards"), 1]
    assert tree_bytes(tmp_path) == {}


def test_drafts_of_killed_processes_are_removed_when_they_are_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".index-draft-old", tmp_path / ".index-draft-young"
    old.mkdir()
    young.mkdir()
    (old / "0.00000.samples").write_bytes(b"x")
    os.utime(old, (0, 0))
    build_index(ListSource({"a": [sample(1)]}), SourceConfig(path="x"), tmp_path)
    assert not old.exists()
    assert young.exists()


def test_user_columns_follow_in_the_order_of_appearance(tmp_path: Path) -> None:
    rows = [sample(1, z=1, b="x"), sample(2, b="y", a=2.5), sample(3, "b", c=None, z=7)]
    samples, _ = indexed(pool(*rows), tmp_path)
    assert samples.columns[len(SAMPLE_COLUMNS) :] == ["z", "b", "a", "c"]
    assert samples.select("z", "b", "a", "c").rows() == [
        (1, "x", None, None),
        (None, "y", 2.5, None),
        (7, None, None, None),
    ]
    assert samples.schema["c"] == pl.String


def test_dtypes_are_common_to_all_shards(tmp_path: Path) -> None:
    rows = [
        sample(1, "a", is_noisy=True, n=1, f=1, mixed=True, big=1, none=None, text="1"),
        sample(2, "b", is_noisy=None, n=None, f=0.5, mixed=3, big=2**64, none=None, text=2),
        sample(3, "c", is_noisy=False, n=2, f=float("inf"), mixed=0.5, text="x"),
    ]
    samples, _ = indexed(pool(*rows), tmp_path)
    own = samples.select("is_noisy", "n", "f", "mixed", "big", "none", "text")
    assert dict(own.schema) == {
        "is_noisy": pl.Boolean,
        "n": pl.Int64,
        "f": pl.Float64,
        "mixed": pl.String,
        "big": pl.String,
        "none": pl.String,
        "text": pl.String,
    }
    assert own.rows() == [
        (True, 1, 1.0, "true", "1", None, "1"),
        (None, None, 0.5, "3", "18446744073709551616", None, "2"),
        (False, 2, None, "0.5", None, None, "x"),
    ]


def test_columns_with_our_names_are_kept_under_another(tmp_path: Path) -> None:
    meta = {"width": 3, "source_width": 4, "caption": "other", "clip_score": 0.5, "map_x": "m"}
    samples, _ = indexed(pool(sample(1, **meta)), tmp_path)
    assert samples.columns[len(SAMPLE_COLUMNS) :] == [
        "source_source_width",
        "source_width",
        "source_caption",
        "source_clip_score",
        "source_map_x",
    ]
    assert samples.row(0)[len(SAMPLE_COLUMNS) :] == (3, 4, "other", 0.5, "m")


names = st.lists(
    st.sampled_from(
        [
            "width",
            "uid",
            "Width",
            "n",
            "source_width",
            "source_source_width",
            "",
            "own.n",
            "unnamed",
        ]
    ),
    unique=True,
)


@given(names=names)
def test_stored_names_are_unique_and_never_ours(names: list[str]) -> None:
    stored = stored_names(names)
    assert list(stored) == names
    assert len(set(stored.values())) == len(names)
    assert not {name.lower() for name in stored.values()} & {"width", "uid"}
    assert all(
        new.removesuffix(old or "unnamed").replace("source_", "") == ""
        for old, new in stored.items()
    )


cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)


@given(values=st.lists(cells, max_size=8))
def test_any_column_is_stored_without_loss_of_rows(values: list[Any]) -> None:
    stored = column("c", values, column_dtype(values)).to_list()
    assert len(stored) == len(values)
    for value, cell in zip(values, stored, strict=True):
        if value is None or (isinstance(value, float) and not abs(value) < float("inf")):
            assert cell is None
        elif isinstance(cell, str):
            assert cell in {value, str(value), str(value).lower()}
        else:
            assert cell == (float(value) if isinstance(cell, float) else value)


def test_a_large_shard_is_drafted_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Sample | Skip] = [sample(n, n=n if n < 6 else f"x{n}") for n in range(11)]
    rows[4] = Skip("k", "a", "empty_caption", "why")
    rows.append(sample(2))
    whole, skipped = indexed(pool(*rows), tmp_path / "whole")
    for size in (1, 3, 4, 12):
        monkeypatch.setattr(index, "CHUNK_ROWS", size)
        parts = indexed(pool(*rows), tmp_path / f"{size}")
        assert parts[0].equals(whole)
        assert parts[1].equals(skipped)
    assert whole["n"].to_list() == ["0", "1", "2", "3", "5", *(f"x{n}" for n in range(6, 11))]
    assert skipped["reason"].to_list() == ["empty_caption", "duplicate_uid"]


def test_odd_column_names_are_stored(tmp_path: Path) -> None:
    odd = {"": 1, "^x.*$": 2, "a\nb": 3, "nul\0": 4, "own.uid": 5, "*": 6}
    samples, _ = indexed(pool(sample(1, **odd)), tmp_path)
    assert dict(zip(samples.columns[10:], samples.row(0)[10:], strict=True)) == {
        "unnamed": 1,
        "source_^x.*$": 2,
        "ab": 3,
        "nul": 4,
        "own.uid": 5,
        "source_*": 6,
    }


def test_too_many_columns_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MAX_COLUMNS", 5)
    rows = [sample(n, **{f"column {n}": 1}) for n in range(6)]
    with pytest.raises(SourceError) as caught:
        build_index(pool(*rows), SourceConfig(path="x"), tmp_path)
    assert (caught.value.got, caught.value.allowed) == ("6", "at most 5")


def test_a_pool_without_any_sample_says_why(tmp_path: Path) -> None:
    source = pool(Skip("k", "a", "empty_caption", "no caption"))
    with pytest.raises(SourceError) as caught:
        build_index(source, SourceConfig(path="x"), tmp_path)
    assert caught.value.got == "'empty_caption: 1'"
    assert caught.value.next_step == "look at the first skip: k: no caption"
    with pytest.raises(SourceError) as caught:
        build_index(ListSource({"a": []}), SourceConfig(path="x"), tmp_path)
    assert caught.value.got == "'no samples at all'"
