"""How long live tuning will take, told before it blocks a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

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


@pytest.mark.parametrize("batch", [2, 64])
def test_a_reverse_pass_is_timed_over_the_whole_batch(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    width, embedding = 24, 16
    with FlopCounterMode(display=False) as counter:
        # A clock that ticks once for every operation of a product of matrices.
        monkeypatch.setattr(tuning.time, "perf_counter", counter.get_total_flops)
        ticks = tuning._reverse_pass_seconds(batch, width, embedding)
    # Back through the logits (B, B) to the embeddings (B, D), and from these to the weight (F, D).
    assert ticks == 2 * batch * batch * embedding + 2 * batch * width * embedding


def test_a_batch_too_large_for_the_cosine_is_refused_before_it_is_tried(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=600)
    with pytest.raises(ScoreError, match="one reverse pass per sample"):
        tuning.estimate_seconds(run, ProbeConfig(batch_size=600, method="cos"))
