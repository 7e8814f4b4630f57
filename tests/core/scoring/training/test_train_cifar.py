"""Real images with real label noise are trained on from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mimic_core.__main__ import main
from mimic_core.runs.run import open_run
from mimic_core.runs.table import run_table
from tests.places import CIFAR

ARCH = "timm:test_vit"  # timm's tiny ViT, with random weights
SAMPLES, TRUSTED, HELD_OUT = 300, 0.2, 0.2

pytestmark = pytest.mark.skipif(not CIFAR.is_file(), reason=f"no pool at {CIFAR}")


def test_noisy_labels_are_trained_on_with_trusted_and_held_out_samples_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(CIFAR), "--task", "labels", "--label-column", "noisy_worse"]
    arguments += ["--reference", f"{ARCH}:random:0", "--preprocess", "imagenet"]
    arguments += ["--trusted", f"{TRUSTED:.0%}", "--trusted-label-column", "label"]
    arguments += ["--model", f"{ARCH}:random:1", "--sample", str(SAMPLES), "--epochs", "1"]
    arguments += ["--held-out", str(HELD_OUT), "--workers", "0", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    run = open_run(Path(capsys.readouterr().out.strip()))
    record, pool = run.record, run.features.samples
    assert (len(pool), record.skipped) == (SAMPLES, 0)
    assert (record.status, record.mimic_layers) == ("done", ("head.weight",))
    assert record.samples + record.held_out == SAMPLES
    assert record.reference_head is not None
    assert (record.reference_head.origin, record.reference_head.classes) == ("trusted", 10)
    # What is left is trained on: about 0.8 of the 0.8 that are not trusted.
    assert record.samples == pytest.approx(SAMPLES * (1 - TRUSTED) * (1 - HELD_OUT), abs=30)
    table = run_table(run)
    # The worst annotator's labels are trained on, the clean ones kept as a column: 40 % differ.
    wrong = float((table["label"] != table["source_label"]).mean())  # type: ignore[arg-type]
    assert wrong == pytest.approx(0.4, abs=0.12)
    assert not set(table["uid"]) & set(run.held_out)
    scores = run.scores()
    assert len(scores) == record.samples
    assert scores["mimic_score"].is_finite().all()
    before, after = run.metrics().to_dicts()
    assert before["held_out"] == after["held_out"] > 0
    assert after["held_out_loss"] != before["held_out_loss"]
    assert 0 <= after["accuracy"] <= 1
