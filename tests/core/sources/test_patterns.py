"""A pool as a pattern of files: braces and the shell's marks."""

from __future__ import annotations

from pathlib import Path

import pytest

from mimic_core.base.config import SourceConfig
from mimic_core.base.errors import SourceError
from mimic_core.sources.opening import open_source
from mimic_core.sources.path import spelt_out
from tests.core.sources_pools import (
    captions,
    image_bytes,
    items,
    opened,
    samples,
    skips,
    triple,
    write_files,
    write_image_rows,
    write_tar,
)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{00..02}.tar", ["00.tar", "01.tar", "02.tar"]),
        ("{8..10}.tar", ["8.tar", "9.tar", "10.tar"]),
        ("{2..1}", ["2", "1"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
        ("{a,{b,c}}", ["a", "a", "b", "c"]),
        ("{x}", ["x"]),
        ("{0..2", ["{0..2"]),
    ],
)
def test_braces_are_spelt_out_as_webdataset_does(pattern: str, names: list[str]) -> None:
    assert sorted(set(spelt_out(pattern))) == sorted(set(names))


def shards(root: Path, *names: str) -> Path:
    for name in names:
        write_tar(root / name, triple(Path(name).stem, name))
    return root


def test_braces_name_shards_and_one_that_is_not_there_is_a_skip(tmp_path: Path) -> None:
    shards(tmp_path, "s/00000.tar", "s/00002.tar", "s/00003.tar", "t/0.tar")
    source = opened(tmp_path / "s" / "{00000..00002}.tar")
    assert captions(source) == {"00000": "s/00000.tar", "00002": "s/00002.tar"}
    assert [(one.shard, one.reason) for one in skips(source)] == [("00001", "unreadable_shard")]
    assert "No such file" in skips(source)[0].detail
    assert source.unread() == {}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("data/*.tar", ["data/a.tar", "data/b.tar"]),
        ("data/[a]*.tar", ["data/a.tar"]),
        ("data/?.tar", ["data/a.tar", "data/b.tar"]),
        ("{data,more}/*/*.tar", ["more/x/c.tar"]),
        ("**/*.tar", ["data/a.tar", "data/b.tar", "more/x/c.tar"]),
        ("data*", []),
    ],
)
def test_marks_of_the_shell_name_shards_at_any_depth(
    tmp_path: Path, pattern: str, found: list[str]
) -> None:
    shards(tmp_path, "data/a.tar", "data/b.tar", "more/x/c.tar")
    if not found:
        with pytest.raises(SourceError, match="no file fits the pattern"):
            opened(tmp_path / pattern)
        return
    assert sorted(str(one.caption) for one in samples(opened(tmp_path / pattern))) == found


def test_parquet_files_are_named_by_a_pattern(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [{"image": image_bytes(), "text": split}]
        write_image_rows(tmp_path / f"{split}-00000-of-00001.parquet", rows)
    (one,) = samples(opened(tmp_path / "train-*.parquet"))
    assert (one.caption, one.meta) == ("train", {"split": "train"})


def test_a_file_of_the_very_name_is_no_pattern(tmp_path: Path) -> None:
    shards(tmp_path, "a[0].tar", "a0.tar")
    assert captions(opened(tmp_path / "a[0].tar")) == {"a[0]": "a[0].tar"}


def test_img2datasets_tables_beside_the_shards_are_read(tmp_path: Path) -> None:
    shards(tmp_path, "0.tar", "1.tar")
    row = {"key": "9", "status": "failed_to_download", "error_message": "HTTP 404"}
    write_image_rows(tmp_path / "0.parquet", [row])
    source = opened(tmp_path / "{0..1}.tar")
    assert [(one.key, one.reason) for one in skips(source)] == [("9", "failed_download")]


@pytest.mark.parametrize("pattern", ["{a,..}/x.tar", "*/../../x.tar", "{a,/etc}/*"])
def test_a_pattern_that_leads_out_of_its_folder_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(SourceError, match="a pattern leads out of its folder"):
        opened(tmp_path / pattern)


def test_a_pattern_of_too_many_files_is_refused_at_once(tmp_path: Path) -> None:
    for pattern in ("{0..99999999}.tar", "{0..99999}{0..99999}.tar", "{0..999}" * 9):
        with pytest.raises(SourceError, match="a pattern names too many files"):
            opened(tmp_path / pattern)


def test_links_that_a_pattern_meets_lead_no_further_than_links_may(tmp_path: Path) -> None:
    shards(tmp_path / "away", "a.tar")
    pool = shards(tmp_path / "pool", "own/b.tar")
    (pool / "link").symlink_to(tmp_path / "away")
    assert len(items(opened(pool / "*" / "*.tar"))) == 2
    source = opened(pool / "*" / "*.tar", link_roots=(str(pool),))
    assert captions(source) == {"b": "own/b.tar"}
    assert source.unread() == {"linked file that is not followed": 1}


def test_a_pattern_of_no_known_layout_says_what_it_names(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.md": "", "b.md": ""})
    with pytest.raises(SourceError, match="is of no known layout") as caught:
        opened(tmp_path / "*.md")
    assert "2 x .md" in str(caught.value.got)


@pytest.mark.parametrize("pattern", ["\0{a,b}.tar", "{a,\0}.tar", "a{b,c}/\0", f"{'x' * 300}?.tar"])
def test_a_pattern_that_no_name_can_fit_is_refused(tmp_path: Path, pattern: str) -> None:
    shards(tmp_path, "b.tar")
    with pytest.raises(SourceError, match=r"a NUL|no file fits"):
        opened(Path(f"{tmp_path}/{pattern}"))


def test_a_name_in_braces_that_is_too_long_for_a_file_is_a_skip(tmp_path: Path) -> None:
    shards(tmp_path, "b.tar")
    source = opened(tmp_path / f"{{{'x' * 300},b}}.tar")
    kinds = [getattr(one, "reason", "good") for one in items(source)]
    assert set(kinds) == {"unreadable_shard", "good"}


def test_braces_that_multiply_searches_are_refused(tmp_path: Path) -> None:
    """Eleven pairs spell 2,048 patterns, each of which would walk the folder."""
    pattern = "{a,b}" * 11 + "*.tar"
    with pytest.raises(SourceError, match="too many searches") as caught:
        open_source(SourceConfig(path=str(tmp_path / pattern)))
    assert "2,048 patterns" in str(caught.value)
