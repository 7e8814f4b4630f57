"""How long live tuning will take, told before it blocks a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from mimic_core.base.config import ProbeConfig
from mimic_core.base.errors import ScoreError
from mimic_core.scoring import tuning
from tests.fakes import fake_run


def test_the_cosine_costs_one_reverse_pass_per_sample_and_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path, n=130)
    monkeypatch.setattr(tuning, "_multiply_adds_per_second", lambda: 1e9)
    monkeypatch.setattr(tuning, "_reverse_pass_seconds", lambda *_: 0.01)
    plain = tuning.estimate_seconds(run, ProbeConfig(batch_size=32, epochs=3))
    cosine = ProbeConfig(batch_size=32, epochs=3, method="cos")
    # Five batches of 32 hold the 130 samples: the last one is filled up and costs as much.
    assert tuning.estimate_seconds(run, cosine) == pytest.approx(plain + 5 * 32 * 3 * 0.01)


def test_a_reverse_pass_costs_more_in_a_larger_batch() -> None:
    small, large = (
        min(tuning._reverse_pass_seconds(batch, 64, 64) for _ in range(3)) for batch in (2, 512)
    )
    assert 0 < small < large


def test_a_batch_too_large_for_the_cosine_is_refused_before_it_is_tried(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=600)
    with pytest.raises(ScoreError, match="one reverse pass per sample"):
        tuning.estimate_seconds(run, ProbeConfig(batch_size=600, method="cos"))
