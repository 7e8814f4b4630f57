"""Every parser on damaged seeds, for a moment; ``fuzz.py`` does the same for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile import fuzz
from tests.hostile.parsers import PARSERS, Parser, try_one, workplace


@pytest.mark.parametrize("name", PARSERS)
def test_the_seeds_of_a_parser_are_read(name: str, tmp_path: Path) -> None:
    """Else a fuzzer would begin, and end, at the door."""
    parser = PARSERS[name]
    ends = [
        try_one(parser, seed, tmp_path / str(place)) for place, seed in enumerate(parser.seeds())
    ]
    assert ends.count("read") > len(ends) / 2, ends


@st.composite
def damaged(draw: st.DrawFn, parser: Parser) -> bytes:
    """A seed with a few pieces changed, put in, or cut out."""
    data = bytearray(draw(st.sampled_from(parser.seeds())))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        until = draw(st.integers(place, min(len(data), place + 8)))
        data[place:until] = draw(st.sampled_from([b"", *parser.words]) | st.binary(max_size=4))
    return parser.mend(bytes(data))


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_seeds_end_in_rows_or_a_refusal(name: str) -> None:
    parser = PARSERS[name]
    with workplace() as place:
        numbers = iter(range(1_000_000))

        @settings(max_examples=25, deadline=None, database=None)
        @given(data=damaged(parser))
        def hold(data: bytes) -> None:
            try_one(parser, data, place / str(next(numbers)))

        hold()


def test_without_atheris_the_fuzzer_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fuzz.main(["tar"]) == 2
    assert "next step: pip install atheris" in capsys.readouterr().err


def test_the_fuzzer_knows_every_parser() -> None:
    assert tuple(PARSERS) == fuzz.NAMES


def test_a_parser_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fuzz.main(["magic"])
    assert "manifest" in capsys.readouterr().err


def test_a_finding_is_written_down_once_for_each_place(tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        try:
            raise ValueError("broken")
        except ValueError as error:
            fuzz.note(tmp_path, data, error)
    found = {path.suffix: path.read_bytes() for path in tmp_path.iterdir()}
    assert found[".input"] == b"one"
    assert found[".txt"].endswith(b"ValueError: broken\n")
    assert len(found) == 2


@pytest.mark.slow
def test_the_fuzzer_searches_and_reports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed")
    code = fuzz.main(["recipe", "--seconds", "5", "--folder", str(tmp_path)])
    said = capfd.readouterr().out
    assert code == 0, said
    assert "0 findings" in said
    assert "recipe" in said
    assert len([*(tmp_path / "recipe" / "corpus").iterdir()]) > len(PARSERS["recipe"].seeds())
