"""The direction check: do the scores tell right labels or captions from wrong ones?

A mimic score is only as good as its pair of models (method.md section 6). So every run scores some
samples a second time with a label or caption that is wrong on purpose (``stats.direction``), and
says in plain words what follows. It also records the mean loss along the segment from the model to
the reference, the share of positive scores and their agreement with CLIP score and loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from mimic_core.base import files
from mimic_core.base.config import Task
from mimic_core.base.errors import ModelError, ScoreError
from mimic_core.base.identity import rows_of
from mimic_core.features.encoders import embed_with_tangents
from mimic_core.features.loading import LoadedBatch
from mimic_core.features.stored import Rows, features_array
from mimic_core.mimic import scores as mimic
from mimic_core.mimic.contrastive import score_logits
from mimic_core.mimic.losses import cross_entropy_losses
from mimic_core.models import clip
from mimic_core.models.layers import MLP_OUTPUT, reinitialised
from mimic_core.models.projections import find_projection
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.means import score_summary
from mimic_core.runs.record import DirectionCheck, EpochCheck, LayerSweep
from mimic_core.runs.run import Run
from mimic_core.scoring.labels.class_head import HEAD_FILE, read_class_head
from mimic_core.scoring.snapshot import module_losses, scaling_with_tangents
from mimic_core.stats.agreement import rank_agreement
from mimic_core.stats.direction import MOST_LIKE_PLANTED, Control, Judgement, judge

_BLAME = (
    "The reference does not know this pool, the model has overtaken it (a larger batch or a lower "
    "learning rate may help), or the mimic layers mean different things in the two models."
)
POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)


def direction_check(
    segment: Sequence[float],
    scores: np.ndarray,
    *,
    clip_scores: np.ndarray | None,
    losses: np.ndarray,
    control: Control | None,
    what: Task,
    sweep: Sequence[LayerSweep] = (),
) -> DirectionCheck:
    """Put the measurements together and draw the verdict.

    Args:
        segment: Mean losses at ``POSITIONS`` between the model (first) and the reference (last).
        scores, losses: One value per sample (N).
        clip_scores: The same; None where the reference gives none.
        control: Of the planted samples; None where nothing could be planted.
        what: Whether labels or captions are judged.
    """
    judged = None if control is None else judge(control)
    return DirectionCheck(
        segment=tuple(zip(POSITIONS, (float(loss) for loss in segment), strict=True)),
        share_positive=float((scores > 0).mean()),
        rank_with_clip_score=None if clip_scores is None else rank_agreement(scores, clip_scores),
        rank_with_loss=rank_agreement(scores, losses),
        sweep=tuple(sweep),
        verdict=verdict(judged, what),
        **(
            {"level": "unknown"} if control is None or judged is None else _figures(control, judged)
        ),
    )


def _figures(control: Control, judged: Judgement) -> dict[str, Any]:
    epochs = tuple(
        EpochCheck(
            epoch=number,
            figure=one.figure.value,
            figure_until=one.until.value,
            level_until=one.level_until,
            rank_with_loss=one.rank_with_loss,
            rank_with_reference=one.rank_with_reference,
        )
        for number, one in enumerate(judged.epochs)
    )
    return {
        "level": judged.level,
        "figure": judged.figure.value,
        "error": judged.figure.error,
        "planted": control.own.shape[1],
        "like_planted": judged.like,
        "epochs": epochs,
        "turns_at": judged.turns_at,
        "use_epochs": judged.use_epochs,
    }


def verdict(judged: Judgement | None, what: Task) -> str:
    """What follows, in plain words."""
    one, many = {"labels": ("label", "labels"), "pairs": ("caption", "captions")}[what]
    if judged is None:
        return (
            f"Not judged: no {one} could be planted in this run, so nothing says whether its "
            f"scores tell right {many} from wrong ones."
        )
    figure = judged.figure
    expected = f"expected AUROC for wrong {many} {figure.value:.2f} ± {2 * figure.error:.2f}"
    compared = f"{figure.above:.0%} of the own {many} score above {many} planted on purpose"
    if judged.level == "unknown":
        if judged.like > MOST_LIKE_PLANTED:
            return (
                f"Cannot be judged: to the reference, the pool's {many} look like {many} planted "
                "on purpose. Either it knows nothing about this pool, or nearly all of them are "
                "wrong. Do not trust these scores before you know which."
            )
        return (
            f"Cannot be judged: {expected} is too uncertain. Too few samples were scored, or too "
            f"many {many} are wrong."
        )
    opening = {
        "good": f"The direction is sound: {expected}; {compared}.",
        "caution": f"Use with care: {expected}; {compared}.",
        "bad": f"Do not trust these scores: {compared}, which is what chance or worse would give.",
    }[judged.level]
    return " ".join([opening, *_advice(judged)])


def _advice(judged: Judgement) -> list[str]:
    """What to do about scores that are less than sound."""
    if judged.turns_at is not None:
        turned = f"They turn round in epoch {judged.turns_at + 1} of {len(judged.epochs)}."
        return [turned, _offer(judged)]
    if judged.use_epochs is not None:
        return [_offer(judged)]
    if judged.level == "bad":
        return [_BLAME]
    return []


def _offer(judged: Judgement) -> str:
    first = judged.use_epochs
    if first is None:
        return "Score again with a larger batch or a lower learning rate."
    some = "epoch 1" if first == 1 else f"epochs 1-{first}"
    level = {"good": "sound", "caution": "usable with care", "unknown": "not yet turned round"}
    kind = level[judged.epochs[first - 1].level_until]
    return f"Use {some} only, which is {kind}, or score again with a larger batch."


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
            measured = score_logits(embedded, scaling_with_tangents(scored, vector))
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
    stored = run.stored_scores()
    scores = score_summary(stored)
    summary = uids.join(scores, on="uid", how="inner", maintain_order="left")
    left = uids.select("uid").join(scores, on="uid", how="anti", maintain_order="left")
    files.write_parquet(run.path / "skipped.parquet", features.skipped)
    if len(left):
        files.write_parquet(run.path / "held_out.parquet", left)
    measured = summary["clip_score"].null_count() == 0  # an image model gives no CLIP score
    labelled = (run.path / HEAD_FILE).exists()
    check = direction_check(
        segment,
        summary["mimic_score"].to_numpy(),
        clip_scores=summary["clip_score"].to_numpy() if measured else None,
        losses=summary["loss"].to_numpy(),
        control=read_control(run, features, stored),
        what="labels" if labelled else "pairs",
        sweep=sweep,
    )
    return run.update(
        samples=len(summary),
        held_out=len(left),
        skipped=len(features.skipped),
        self_check={"relative_difference": self_check},
        direction_check=check.model_dump(),
    )


def read_control(run: Run, features: FeatureSet, scores: pl.DataFrame) -> Control | None:
    """The planted scores of a run beside its own; None where nothing was planted.

    Args:
        features: Of the reference.
        scores: All stored scores of the run.
    """
    planted = run.planted_scores()
    if planted is None or planted.is_empty():
        return None
    mine = scores.select("uid", "epoch", "mimic_score", "loss")
    joined = planted.join(mine, on=["uid", "epoch"], how="inner", maintain_order="left")
    steps = joined["epoch"].n_unique()
    # In training a caption is planted from the same batch, where one may not be found.
    joined = joined.filter(pl.len().over("uid") == steps).sort("epoch", "uid")
    if joined.is_empty():
        return None

    def by_epoch(name: str) -> np.ndarray:
        return joined[name].to_numpy().reshape(steps, -1)

    first = joined[: len(joined) // steps]
    uids = features.samples["uid"]
    own, partners = (rows_of(uids, first[name]).copy() for name in ("uid", "partner"))
    labelled = (run.path / HEAD_FILE).exists()
    seen = _seen_labels(run, features) if labelled else _seen_pairs(features)
    return Control(
        by_epoch("mimic_score"),
        by_epoch("planted_score"),
        by_epoch("loss"),
        seen(own, own),
        seen(own, partners),
        1 / (features.samples["label"].n_unique() - 1) if labelled else 0.0,
    )


Seen = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""How well images (K,) go with the labels or captions of samples (K,), to the reference."""


def _seen_labels(run: Run, features: FeatureSet) -> Seen:
    """The log-probability of a label under the run's reference head."""
    rows = Rows(features, features_array(features), torch.device("cpu"))
    head = read_class_head(run.path / HEAD_FILE, width=rows.width, labels=())
    labels = features.samples["label"]

    def seen(images: np.ndarray, whose: np.ndarray) -> np.ndarray:
        numbers = torch.tensor(head.numbers(labels.gather(whose).to_list()))
        return -cross_entropy_losses(head.logits(rows.take(images)), numbers).numpy()

    return seen


def _seen_pairs(features: FeatureSet) -> Seen:
    """The cosine of the reference's embeddings of image and caption: the CLIP score."""
    cpu = torch.device("cpu")
    image, text = (Rows(features, f"{side}_embedding", cpu) for side in ("image", "text"))
    return lambda images, whose: (image.take(images) * text.take(whose)).sum(1).numpy()
