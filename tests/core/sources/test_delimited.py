"""Tables as CSV and TSV: rows and skips are the rows of the file, whatever quotes do."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Skip
from mimic_core.sources.limits import MAX_CAPTION_BYTES, MAX_TEXT_BYTES
from mimic_core.sources.tables.delimited import Delimited
from tests.core.sources_pools import captions, image_bytes, items, opened, skips, write_files

PNG = image_bytes()


def pool(root: Path, name: str, table: str | bytes, images: int = 4) -> Path:
    """A table beside ``images`` images ``0.png``, ``1.png`` and so on."""
    return write_files(root, {name: table, **{f"{n}.png": PNG for n in range(images)}})


def rows_of(text: str, name: str = "t.csv") -> list[tuple[list[str], str | None]]:
    """Cells and problem of each row."""
    return [tuple(row) for row in Delimited(io.BytesIO(text.encode()), name).rows("image")]  # type: ignore[misc]


def test_quotes_that_open_a_caption_of_a_raw_tsv_are_part_of_it(tmp_path: Path) -> None:
    lines = ["filepath\ttitle", '0.png\t"Tis the season', "1.png\tplain", '2.png\t"Twas a night']
    source = opened(pool(tmp_path, "t.tsv", "\n".join([*lines, '3.png\ta "b" c'])))
    assert captions(source) == {
        "0.png": '"Tis the season',
        "1.png": "plain",
        "2.png": '"Twas a night',
        "3.png": 'a "b" c',
    }
    assert skips(source) == []


def test_a_quoted_tsv_is_unquoted(tmp_path: Path) -> None:
    text = 'filepath\ttitle\n0.png\t"say ""hi"""\n1.png\t"two\nlines"\n2.png\tplain\n'
    assert captions(opened(pool(tmp_path, "t.tsv", text))) == {
        "0.png": 'say "hi"',
        "1.png": "two\nlines",
        "2.png": "plain",
    }


def test_an_open_quote_of_a_csv_is_a_skip_and_the_rows_behind_it_stay(tmp_path: Path) -> None:
    lines = ["file_name,caption", '0.png,"Tis the season', "1.png,plain", '2.png,"Twas, a night']
    source = opened(pool(tmp_path, "t.csv", "\n".join([*lines, "3.png,last"])))
    assert captions(source) == {"1.png": "plain", "3.png": "last"}
    assert [(s.key, s.detail) for s in skips(source)] == [
        ("row 0", "line 2: a quote is opened and not closed"),
        ("row 2", "line 4: a quote is opened and not closed"),
    ]


def test_a_quote_that_closes_in_another_row_swallows_neither(tmp_path: Path) -> None:
    text = 'file_name,caption\n0.png,"opens here\n1.png,and closes here"\n2.png,fine\n'
    source = opened(pool(tmp_path, "t.csv", text))
    assert captions(source) == {"1.png": 'and closes here"', "2.png": "fine"}
    assert [s.detail for s in skips(source)] == ["line 2: a quote is opened and not closed"]


def test_line_breaks_in_captions_that_look_like_a_list_stay(tmp_path: Path) -> None:
    text = 'file_name,caption\n0.png,"first, second\nthird, fourth"\n1.png,fine\n'
    assert captions(opened(pool(tmp_path, "t.csv", text))) == {
        "0.png": "first, second\nthird, fourth",
        "1.png": "fine",
    }


def test_one_caption_too_long_for_a_tokenizer_is_one_skip(tmp_path: Path) -> None:
    long = "word " * (MAX_CAPTION_BYTES // 5 + 1)
    source = opened(pool(tmp_path, "t.csv", f"file_name,caption\n0.png,{long}\n1.png,fine\n"))
    assert captions(source) == {"1.png": "fine"}
    (skip,) = skips(source)
    assert (skip.key, skip.reason) == ("0.png", "bad_metadata")
    assert f"the limit is {MAX_CAPTION_BYTES}" in skip.detail


def test_one_line_too_long_to_hold_is_one_skip(tmp_path: Path) -> None:
    long = "x" * (MAX_TEXT_BYTES + 9)
    table = f'file_name,caption\n0.png,{long}\n1.png,fine\n2.png,"{long}"\n3.png,last'
    source = opened(pool(tmp_path, "t.csv", table))
    assert captions(source) == {"1.png": "fine", "3.png": "last"}
    assert [s.detail for s in skips(source)] == [
        f"line 2: longer than {MAX_TEXT_BYTES} bytes",
        f"line 4: longer than {MAX_TEXT_BYTES} bytes",
    ]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_line_ends_of_old_macs_are_read(tmp_path: Path, name: str) -> None:
    text = "file_name,caption\r0.png,one\r1.png,two, quoted\r".replace("two, quoted", '"two, q"')
    source = opened(pool(tmp_path, name, text))
    assert captions(source) == {"0.png": "one", "1.png": "two, q"}


def test_whole_labels_written_with_a_point_are_the_classes_they_mean(tmp_path: Path) -> None:
    table = "file_name,label,other\n0.png,0.0,0\n1.png,1.0,1\n2.png,,\n3.png,12,12\n"
    source = opened(pool(tmp_path, "t.csv", table))
    found = [(one.label, one.meta["other"]) for one in items(source) if not isinstance(one, Skip)]
    assert found == [("0", 0), ("1", 1), ("12", 12)]
    assert source.notes.remarks == {"whole label written with a point": 3}


@pytest.mark.parametrize("labels", [["1.5", "1.0"], ["007", "1.0"], ["1.0", "x"], ["01", "1"]])
def test_other_labels_stay_as_they_are_written(tmp_path: Path, labels: list[str]) -> None:
    rows = "".join(f"{n}.png,{label}\n" for n, label in enumerate(labels))
    found = items(opened(pool(tmp_path, "t.csv", f"file_name,label\n{rows}")))
    assert [one.label for one in found if not isinstance(one, Skip)] == labels


def test_a_header_of_a_million_columns_is_refused_at_once(tmp_path: Path) -> None:
    header = ",".join(f"c{n}" for n in range(100_000))
    with pytest.raises(SourceError, match="too many columns"):
        opened(pool(tmp_path, "t.csv", header + "\n"))


texts = st.text(st.sampled_from('ab",; \té'), max_size=8)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(texts, texts), max_size=6), quoting=st.sampled_from([0, 1]))
def test_what_the_csv_module_writes_is_read_back(rows: list[tuple[str, str]], quoting: int) -> None:
    out = io.StringIO()
    writer = csv.writer(out, quoting=quoting, lineterminator="\n")
    writer.writerow(["image", "caption", "other"])
    for number, row in enumerate(rows):
        writer.writerow([f"{number}.png", *row])
    found = rows_of(out.getvalue())
    assert found == [([f"{n}.png", *row], None) for n, row in enumerate(rows)]


lines = st.text(st.sampled_from('a"\t, '), max_size=10)


@settings(max_examples=200, deadline=None)
@given(written=st.lists(lines, max_size=8), name=st.sampled_from(["t.csv", "t.tsv"]))
def test_every_line_with_an_image_is_a_row_or_a_problem(written: list[str], name: str) -> None:
    delimiter = "\t" if name == "t.tsv" else ","
    text = "".join(f"{n}.png{delimiter}{line}\n" for n, line in enumerate(written))
    found = rows_of(f"image{delimiter}caption\n{text}", name)
    assert len(found) == len(written)
    for number, (cells, problem) in enumerate(found):
        assert cells[0] == ("" if problem else f"{number}.png")
