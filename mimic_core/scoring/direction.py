"""The direction check: is the reference better on this pool, and do the scores say so?

A mimic score is only as good as its pair of models (method.md section 6), so every run records the
mean loss along the segment from the model to the reference, the share of positive scores and their
agreement with CLIP score and loss, and says in plain words what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn

from mimic_core.base import files
from mimic_core.base.errors import ModelError, ScoreError
from mimic_core.features.encoders import embed_with_tangents
from mimic_core.features.loading import LoadedBatch
from mimic_core.mimic import scores as mimic
from mimic_core.mimic.contrastive import score_logits
from mimic_core.models import clip
from mimic_core.models.layers import MLP_OUTPUT, reinitialised
from mimic_core.models.projections import find_projection
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.means import score_summary
from mimic_core.runs.record import CheckLevel, DirectionCheck, LayerSweep
from mimic_core.runs.run import Run
from mimic_core.scoring.snapshot import head_with_tangents, module_losses
from mimic_core.stats.agreement import rank_agreement

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
# A loss has fallen when it is lower by this share: less is within what batches differ by.
_CLEAR_FALL = 0.02


def direction_check(
    segment: Sequence[float],
    scores: np.ndarray,
    *,
    clip_scores: np.ndarray | None,
    losses: np.ndarray,
    sweep: Sequence[LayerSweep] = (),
) -> DirectionCheck:
    """Put the measurements together and draw the verdict.

    Args:
        segment: Mean losses at ``POSITIONS`` between the model (first) and the reference (last).
        scores, losses: One value per sample (N).
        clip_scores: The same; None where the reference gives none.
    """
    share = float((scores > 0).mean())
    with_clip = None if clip_scores is None else rank_agreement(scores, clip_scores)
    with_loss = rank_agreement(scores, losses)
    level, verdict = _verdict(segment, share, with_clip)
    return DirectionCheck(
        segment=tuple(zip(POSITIONS, (float(loss) for loss in segment), strict=True)),
        share_positive=share,
        rank_with_clip_score=with_clip,
        rank_with_loss=with_loss,
        level=level,
        verdict=verdict,
        sweep=tuple(sweep),
    )


def _verdict(
    segment: Sequence[float], share: float, with_clip: float | None
) -> tuple[CheckLevel, str]:
    start, end, lowest = segment[0], segment[-1], min(segment)
    agreement = "" if with_clip is None else f" (rank agreement with CLIP score {with_clip:+.2f})"
    change = f"from {start:.3f} to {end:.3f}"
    if end > start * (1 - _CLEAR_FALL):
        return "bad", (
            f"Do not trust these scores: the reference is not better on this pool; on the way to "
            f"it the loss goes {change}. Choose a better reference or other mimic layers."
        )
    if with_clip is not None and with_clip < 0:
        return "bad", (
            f"Do not trust the order of these scores: the loss falls {change}, yet the scores run "
            f"against the reference's own CLIP score{agreement}. The model may be trained too far "
            "already, or the mimic layers mean different things in the two models."
        )
    if share < 0.5:
        return "caution", (
            f"Use with care: the loss falls {change}, but only {share:.0%} of the samples pull "
            f"towards the reference{agreement}. Look at both ends of the ranking before cutting."
        )
    if segment[1] >= start or lowest < end * (1 - 5 * _CLEAR_FALL):
        return "caution", (
            f"Use with care: the loss falls {change}, but not steadily on the way, so the first "
            f"step does not point straight at the reference{agreement}."
        )
    return "good", (
        f"The direction is sound: the loss falls steadily {change} on the way to the reference, "
        f"and {share:.0%} of the samples pull towards it{agreement}."
    )


def module_segment(
    module: nn.Module,
    vector: mimic.TaskVector,
    batch: LoadedBatch,
    *,
    losses_of: Callable[[nn.Module, LoadedBatch], Tensor] = module_losses,
) -> list[float]:
    """Mean loss of ``batch`` with the mimic layers at ``POSITIONS``; the weights are restored."""
    parameters = {name: module.get_parameter(name) for name in vector.layers}
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    means = []
    with torch.no_grad():
        try:
            for position in POSITIONS:
                for name, parameter in parameters.items():
                    parameter.copy_(start[name] + position * vector.directions[name])
                means.append(float(losses_of(module, batch).mean()))
        finally:
            for name, parameter in parameters.items():
                parameter.copy_(start[name])
    return means


def sweep_layers(
    reference: nn.Module,
    model: nn.Module | None,
    batch: LoadedBatch,
    *,
    seed: int,
) -> list[LayerSweep]:
    """What candidate mimic layers would give on ``batch``: one forward-mode pass each.

    Args:
        model: The scored model; None re-initialises each candidate in a copy of the reference.
    """
    with torch.no_grad():
        clip_scores = _clip_scores(reference, batch)
    found = []
    for layers in candidate_layers(reference):
        scored = reinitialised(reference, layers, seed=seed) if model is None else model
        try:
            vector = mimic.task_vector(scored, reference, layers)
        except ScoreError:
            continue  # the two models agree on these layers: there is nothing to measure
        with torch.no_grad():
            embedded = embed_with_tangents(scored, vector, batch, device=batch.tokens.device)
            measured = score_logits(embedded, head_with_tangents(scored, vector))
        values = measured.scores.cpu().numpy()
        found.append(
            LayerSweep(
                mimic_layers=layers,
                samples=len(values),
                share_positive=float((values > 0).mean()),
                rank_with_clip_score=rank_agreement(values, clip_scores.cpu().numpy()),
                rank_with_loss=rank_agreement(values, measured.losses.cpu().numpy()),
                mean_score=float(values.mean()),
            )
        )
    return found


def candidate_layers(module: nn.Module) -> list[tuple[str, ...]]:
    """Sets of mimic layers worth comparing: projections, last and all MLP outputs of each tower."""
    candidates: list[tuple[str, ...]] = []
    for side in ("image", "text"):
        with suppress(ModelError):  # a tower without a linear projection has none to offer
            candidates.append((find_projection(module, side).name,))
        outputs = [
            name
            for name, _ in module.named_parameters()
            if name.startswith("visual.") == (side == "image") and MLP_OUTPUT.search(name)
        ]
        if outputs:
            candidates.append((outputs[-1],))
        if len(outputs) > 1:
            candidates.append(tuple(outputs))
    return candidates


def _clip_scores(module: nn.Module, batch: LoadedBatch) -> Tensor:
    image = clip.encode_image(module, batch.images, normalize=True)[batch.image_of]
    text = clip.encode_text(module, batch.tokens, normalize=True)
    return (image * text).sum(1)


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
    check = direction_check(
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
