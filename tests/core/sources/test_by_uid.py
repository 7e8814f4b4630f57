"""Columns and lists by uid, from files of other programs."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base.errors import SourceError
from mimic_core.export.formats import datacomp_bytes
from mimic_core.sources.by_uid import hex_uids, read_by_uid, read_uids, uid_texts
from tests.core.scoring_pool import uid_of

UIDS = [uid_of(n) for n in range(4)]
PAIRS = np.array([(int(one[:16], 16), int(one[16:], 16)) for one in UIDS], "u8,u8")
HERE = Path("here.parquet")


def test_uids_are_read_from_every_format(tmp_path: Path) -> None:
    uids = pl.Series("uid", sorted(UIDS))
    frame = uids.to_frame().with_columns(other=pl.lit(1))
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "a.csv")
    frame.write_csv(tmp_path / "a.tsv", separator="\t")
    frame.write_ndjson(tmp_path / "a.jsonl")
    (tmp_path / "a.npy").write_bytes(datacomp_bytes(frame))
    (tmp_path / "a.txt").write_text("\n".join([*uids, uids[0].upper(), ""]), "utf-8")
    for suffix in ("parquet", "csv", "tsv", "jsonl", "npy", "txt"):
        assert read_uids(tmp_path / f"a.{suffix}").to_list() == uids.to_list(), suffix


def test_an_unreadable_or_empty_file_of_uids_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "wrong.csv").write_text("name,other\n1,2\n")
    np.save(tmp_path / "wrong.npy", np.zeros(3))
    for name, problem in [
        ("gone.txt", "cannot be read"),
        ("empty.txt", "lists no uid"),
        ("wrong.csv", "no column of that name"),
        ("wrong.npy", "are none"),
    ]:
        with pytest.raises(SourceError, match=problem):
            read_uids(tmp_path / name)


@given(st.lists(st.uuids(), max_size=20))
def test_halves_are_the_two_ends_of_the_same_128_bits(numbers: list[uuid.UUID]) -> None:
    high = np.array([one.int >> 64 for one in numbers], np.uint64)
    low = np.array([one.int & (2**64 - 1) for one in numbers], np.uint64)
    assert hex_uids(high, low).to_list() == [one.hex for one in numbers]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pl.Series(["Photo 7", UIDS[0].upper(), None]), ["Photo 7", UIDS[0], None]),
        (pl.Series([7, -1], dtype=pl.Int32), ["7", "-1"]),
        (pl.Series([bytes.fromhex(one) for one in UIDS]), UIDS),
        (
            pl.DataFrame(
                PAIRS.tolist(), {"h": pl.UInt64, "l": pl.UInt64}, orient="row"
            ).to_struct(),
            UIDS,
        ),
        (
            pl.Series([list(pair) for pair in PAIRS.view("<i8").reshape(-1, 2).tolist()]),
            UIDS,
        ),
    ],
    ids=["text", "numbers", "bytes", "struct", "signed halves"],
)
def test_every_kind_of_uid_becomes_the_same_text(given: pl.Series, expected: list[Any]) -> None:
    assert uid_texts(given, HERE).to_list() == expected


@pytest.mark.parametrize(
    "given", [pl.Series([1.0]), pl.Series([[1, 2, 3]]), pl.Series([b"short"]), pl.Series([True])]
)
def test_what_could_change_a_uid_is_none(given: pl.Series) -> None:
    with pytest.raises(SourceError, match="are none"):
        uid_texts(given, HERE)


def test_parquet_keeps_its_types_and_not_its_nan(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    table = pa.table(
        {
            "uid": UIDS,
            "score": pa.array([1.5, float("nan"), float("-inf"), None], pa.float32()),
            "count": pa.array([1, 2, 3, None], pa.int16()),
            "nsfw": [True, False, None, True],
            "*": ["a", "b", "c", "d"],
            "raw": [b"1", b"2", b"3", b"4"],
        }
    )
    pq.write_table(table, path)
    found = read_by_uid(path)
    assert found.uids.to_list() == UIDS
    assert {name: (one.dtype, one.to_list()) for name, one in found.columns.items()} == {
        "score": (pl.Float32(), [1.5, None, None, None]),
        "count": (pl.Int16(), [1, 2, 3, None]),
        "nsfw": (pl.Boolean(), [True, False, None, True]),
        "*": (pl.String(), ["a", "b", "c", "d"]),
    }
    assert found.emptied == {"score": 2}
    assert found.unread == ("column raw (bytes)",)
    assert list(read_by_uid(path, columns=["count"]).columns) == ["count"]


def test_delimited_text_and_json_lines_give_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "id,score,count,name\n" + "".join(f"{uid},{n}.5,{n},n{n}\n" for n, uid in enumerate(UIDS))
    )
    (tmp_path / "a.jsonl").write_text(
        "".join(
            f'{{"id": "{uid}", "score": {n}.5, "count": {n}, "name": "n{n}"}}\n'
            for n, uid in enumerate(UIDS)
        )
    )
    for name in ("a.csv", "a.jsonl"):
        found = read_by_uid(tmp_path / name, uid_column="id")
        assert found.uids.to_list() == UIDS
        assert {name: (one.dtype, one.to_list()) for name, one in found.columns.items()} == {
            "score": (pl.Float64(), [0.5, 1.5, 2.5, 3.5]),
            "count": (pl.Int64(), [0, 1, 2, 3]),
            "name": (pl.String(), ["n0", "n1", "n2", "n3"]),
        }


def test_arrays_have_their_uids_inside_or_beside(tmp_path: Path) -> None:
    values = np.array([1.5, 2.5, 3.5, 4.5], np.float32)
    np.save(tmp_path / "dfn.npy", values)
    np.save(tmp_path / "elsewhere.npy", PAIRS)
    with pytest.raises(SourceError, match=r"uids of the rows of dfn.npy are not there"):
        read_by_uid(tmp_path / "dfn.npy")
    whole = np.zeros(4, [("uid", "u8", (2,)), ("dfn", "f4")])
    whole["uid"], whole["dfn"] = PAIRS.view("u8").reshape(-1, 2), values
    np.save(tmp_path / "whole.npy", whole)
    named = np.array([*zip(UIDS, values, strict=True)], [("uid", "U32"), ("dfn", "f4")])
    np.save(tmp_path / "named.npy", named)
    found = [
        read_by_uid(tmp_path / "dfn.npy", uids=tmp_path / "elsewhere.npy"),
        read_by_uid(tmp_path / "whole.npy"),
        read_by_uid(tmp_path / "named.npy"),
    ]
    (tmp_path / "dfn.uids.txt").write_text("\n".join(UIDS))
    found.append(read_by_uid(tmp_path / "dfn.npy"))
    np.save(tmp_path / "dfn.uids.npy", PAIRS)
    found.append(read_by_uid(tmp_path / "dfn.npy"))
    for one in found:
        assert one.uids.to_list() == UIDS
        assert list(one.columns) == ["dfn"]
        assert (one.columns["dfn"].dtype, one.columns["dfn"].to_list()) == (
            pl.Float32(),
            values.tolist(),
        )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"uid,a\n{UIDS[0]},1\n{UIDS[1]},2\n{UIDS[0].upper()},3\n", "more than one row for a uid"),
        (f"uid,a\n{UIDS[0]},1\n,2\n", "rows without a uid; got '1 rows, first row 2'"),
        (f"uid,a\n{UIDS[0]},1,9\n", "line 2: 3 fields"),
        (f"uid\n{UIDS[0]}\n", "no column beside its uids"),
        (f"id,a\n{UIDS[0]},1\n", "no column of that name; got 'uid'; allowed: id, a"),
        (f"uid,a,a\n{UIDS[0]},1,2\n", "names a column twice"),
    ],
)
def test_files_that_cannot_be_joined_say_why(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(SourceError, match=says):
        read_by_uid(tmp_path / "a.csv")


def test_uids_of_json_are_texts_or_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"uid": {2**70}, "a": 1}}\n{{"uid": "x", "a": 2}}\n')
    assert read_by_uid(path).uids.to_list() == [str(2**70), "x"]
    for wrong in ("[1]", "1.5", "true", "{}"):
        path.write_text(f'{{"uid": {wrong}, "a": 1}}\n')
        with pytest.raises(SourceError, match="row 1: a uid is text or a whole number"):
            read_by_uid(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.npy", "a.xlsx", "gone.csv", ""])
def test_what_is_no_such_file_is_refused(tmp_path: Path, name: str) -> None:
    if name.startswith("a."):
        (tmp_path / name).write_bytes(b"PAR1 and nothing more")
    with pytest.raises(SourceError, match="cannot be read"):
        read_by_uid(tmp_path / name)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


ROW = np.dtype([("uid", "S4"), ("score", "<f2")])


def test_bytes_are_texts_and_halves_of_a_number_are_whole_floats(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", np.array([(b"u1", 0.5), (b"u2", 2.0)], ROW))
    found = read_by_uid(path)
    assert found.uids.to_list() == ["u1", "u2"]
    assert found.columns["score"].dtype == pl.Float32
    assert found.columns["score"].to_list() == [0.5, 2.0]


def test_pairs_of_numbers_are_uids_in_an_array_of_two_columns(tmp_path: Path) -> None:
    saved(tmp_path / "a.uids.npy", np.array([[0, 1], [2, 3]], np.uint64))
    path = saved(tmp_path / "a.npy", np.array([0.1, 0.2]))
    assert read_by_uid(path).uids.to_list() == [f"{1:032x}", f"{2:016x}{3:016x}"]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 3)), "where one number a row is read"),
        (np.array(["a", "b"]), "where one number a row is read"),
        (np.array([1.0, 2.0]), "are not there"),
        (np.array([(1.0, 2.0)], [("a", "f4"), ("b", "f4")]), "are not there"),
        (np.array([("u", [1.0, 2.0])], [("uid", "U4"), ("x", "f4", (2,))]), "holds no cells"),
        (np.array([("u", (1.0,))], [("uid", "U4"), ("x", [("y", "f4")])]), "are not read"),
        (np.array([(1.5, 2.0)], [("uid", "f4"), ("x", "f4")]), "uid"),
    ],
)
def test_an_array_without_uids_or_cells_is_refused(
    tmp_path: Path, array: np.ndarray, said: str
) -> None:
    with pytest.raises(SourceError, match=said):
        read_by_uid(saved(tmp_path / "a.npy", array))


def test_as_many_uids_as_rows_are_needed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", np.array([1.0, 2.0]))
    (tmp_path / "a.uids.txt").write_text("u1\n")
    with pytest.raises(SourceError, match="has not one uid for each row") as caught:
        read_by_uid(path)
    assert "1 uids, 2 rows" in str(caught.value)


@pytest.mark.parametrize("uid", ["[1]", "1.5", "true"])
def test_a_uid_of_json_is_text_or_a_whole_number(tmp_path: Path, uid: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"uid": {uid}, "x": 1}}\n')
    with pytest.raises(SourceError, match="text or a whole number"):
        read_by_uid(path)


@pytest.mark.parametrize("kind", ["f4", "U3"])
def test_a_list_of_what_are_no_uids_is_refused(tmp_path: Path, kind: str) -> None:
    pairs = np.zeros(2, [("a", kind), ("b", kind), ("c", kind)])
    with pytest.raises(SourceError, match="no pairs of 64-bit halves"):
        read_uids(saved(tmp_path / "a.npy", pairs))
