from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.state import address
from mimic_core.base.errors import FilterError
from mimic_core.filters.conditions import Absolute, Not, Text, Uids
from mimic_core.filters.recipe import Recipe
from tests.recipes import recipe


@given(
    st.text(min_size=1).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_selection_comes_back_from_the_address(text: str, low: float) -> None:
    asked = recipe(Absolute(column="clip_score", min=low), Not(condition=Text(contains=text)))
    letters = address.pack(asked)
    assert address.unpack(letters) == asked
    assert set(letters) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_no_conditions_need_no_letters() -> None:
    assert address.pack(Recipe()) == ""
    assert address.unpack("") == Recipe()


def test_a_selection_too_long_for_an_address_is_left_out() -> None:
    import hashlib

    uids = tuple(hashlib.md5(str(i).encode()).hexdigest() for i in range(2000))  # noqa: S324
    assert address.pack(recipe(Uids(uids=uids[:20]))) != ""
    assert address.pack(recipe(Uids(uids=uids))) == ""


def packed(text: bytes) -> str:
    return base64.urlsafe_b64encode(zlib.compress(text)).decode().rstrip("=")


@pytest.mark.parametrize(
    "letters",
    [
        "%%%",
        "A",
        "aGVsbG8",
        packed(b"no json"),
        packed(b"[1]"),
        packed(b'{"conditions": 5}'),
        packed(b" " * (2 << 20)),  # unpacks to far more than it is
        packed(b'{"version":1}')[:-6],
    ],
)
def test_damaged_letters_are_an_error_that_says_what_to_do(letters: str) -> None:
    with pytest.raises(FilterError) as caught:
        address.unpack(letters)
    assert caught.value.next_step
