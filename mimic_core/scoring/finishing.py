"""What every run keeps beside its scores once they are all there, whatever has made them."""

from __future__ import annotations

from collections.abc import Sequence

from mimic_core.base import files
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.run import LayerSweep, Run
from mimic_core.runs.table import score_summary
from mimic_core.scoring import direction


def finish_scores(
    run: Run,
    features: FeatureSet,
    segment: list[float],
    *,
    self_check: float,
    sweep: Sequence[LayerSweep] = (),
) -> Run:
    """Who was skipped, who has no score, and whether the scores can be trusted.

    Args:
        segment: Mean losses on the way from the model to the reference.
        self_check: Relative difference between two ways to compute the same.
        sweep: What other mimic layers would have given.
    """
    uids = features.samples.select("uid", "clip_score")
    scores = score_summary(run.stored_scores())
    summary = uids.join(scores, on="uid", how="inner", maintain_order="left")
    left = uids.select("uid").join(scores, on="uid", how="anti", maintain_order="left")
    files.write_parquet(run.path / "skipped.parquet", features.skipped)
    if len(left):
        files.write_parquet(run.path / "held_out.parquet", left)
    measured = summary["clip_score"].null_count() == 0  # an image model gives no CLIP score
    check = direction.direction_check(
        segment,
        summary["mimic_score"].to_numpy(),
        clip_scores=summary["clip_score"].to_numpy() if measured else None,
        losses=summary["loss"].to_numpy(),
        sweep=sweep,
    )
    return run.update(
        samples=len(summary),
        held_out=len(left),
        skipped=len(features.skipped),
        self_check={"relative_difference": self_check},
        direction_check=check.model_dump(),
    )
