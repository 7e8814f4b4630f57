from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (True, "yes"), (0.123456, "0.1235"), (12_345, "12,345"), ("a", "a")],
)
def test_cells_are_short(value: object, shown: str) -> None:
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(4.4, "4 s"), (200, "3 min 20 s"), (7_380, "2 h 3 min")]
)
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


def test_share_of_nothing_is_a_dash() -> None:
    assert (text.share(1, 3), text.share(0, 0)) == ("33.3 %", "–")


@given(st.text())
def test_no_markup_survives(foreign: str) -> None:
    shown = text.plain(foreign)
    assert not re.search(r"(?<!\\)(\\\\)*[<>*_`\[\]$]", shown)
    read = re.sub(r"\\(.)", r"\1", shown, flags=re.DOTALL)
    assert read.replace(text.PARTING, "") == foreign.replace("\n", " ").replace(text.PARTING, "")


@pytest.mark.parametrize(
    "found",
    [":material/home:", ":streamlit:", "->", "<-", "<=", ">=", "https://a.b", "www.a.b", "a@b.c"],
)
def test_what_streamlit_looks_for_behind_markdown_is_parted(found: str) -> None:
    assert found not in text.plain(found).replace("\\", "")


def test_columns_are_named_as_people_say_them() -> None:
    assert [text.spoken(name) for name in ("mimic_score", "clip_score")] == [
        "mimic score",
        "CLIP score",
    ]
