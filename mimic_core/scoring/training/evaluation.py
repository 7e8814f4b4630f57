"""How good a model is on the samples that it is not trained on.

Pairs: mean loss in batches of the run's size, the same ones every time, and recall at 1 among all
held-out samples both ways. Labels: mean loss and accuracy. Letters: N held-out samples, D embedding
width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mimic_core.base.draws import draw_batches
from mimic_core.features.loading import LoadedBatch
from mimic_core.mimic.losses import widened
from mimic_core.scoring.training.objectives import Objective

_BLOCK_ELEMENTS = 1 << 24  # of a block of the similarity matrix


@dataclass(frozen=True)
class HeldOutMetrics:
    """None where it does not apply."""

    held_out_loss: float | None = None
    accuracy: float | None = None
    image_to_text_recall_at_1: float | None = None
    text_to_image_recall_at_1: float | None = None


def evaluate(
    module: nn.Module,
    objective: Objective,
    batches: Iterable[LoadedBatch],
    *,
    words: np.ndarray,
    images: np.ndarray,
    batch_size: int,
    seed: int,
) -> HeldOutMetrics:
    """Run ``module`` over the held-out ``batches`` and measure.

    Args:
        words: Parsed uids (N, 2) of the held-out samples, in the order of the batches.
        images: Which image each sample has (N,): captions may share one, and each of them is then
            a right answer to it.
        batch_size, seed: Of the batches in which a contrastive loss is taken.
    """
    rows: list[list[Tensor]] = [[] for _ in range(objective.row_outputs)]
    targets: list[Tensor] = []
    shared: tuple[Tensor, ...] = ()
    with torch.no_grad():
        for batch in batches:
            outputs = objective.outputs(module, batch)
            shared = outputs[objective.row_outputs :]
            for kept, value in zip(rows, outputs, strict=False):
                kept.append(value)
            own = objective.targets(batch)
            if own is not None:
                targets.append(own)
        whole = tuple(torch.cat(parts) for parts in rows)
        if targets:
            return _label_metrics(objective, whole, torch.cat(targets))
        return HeldOutMetrics(
            held_out_loss=_pair_loss(
                objective, whole, shared, words, min(batch_size, len(words)), seed
            ),
            image_to_text_recall_at_1=recall_at_1(whole[0], whole[1], images),
            text_to_image_recall_at_1=recall_at_1(whole[1], whole[0], images),
        )


def recall_at_1(queries: Tensor, answers: Tensor, images: np.ndarray) -> float:
    """Share of ``queries`` (N, D) whose most similar one of ``answers`` (N, D) has their image."""
    right = 0
    step = max(1, _BLOCK_ELEMENTS // len(answers))
    for start in range(0, len(queries), step):
        best = (queries[start : start + step] @ answers.T).argmax(1).cpu().numpy()
        right += int((images[best] == images[start : start + step]).sum())
    return right / len(queries)


def _label_metrics(
    objective: Objective, outputs: tuple[Tensor, ...], labels: Tensor
) -> HeldOutMetrics:
    losses = objective.losses(outputs, labels)
    right = outputs[0].argmax(1) == labels
    return HeldOutMetrics(
        held_out_loss=float(widened(losses).mean()), accuracy=float(widened(right).mean())
    )


def _pair_loss(
    objective: Objective,
    outputs: tuple[Tensor, ...],
    shared: tuple[Tensor, ...],
    words: np.ndarray,
    batch_size: int,
    seed: int,
) -> float:
    losses = []
    for draw in draw_batches(words, batch_size=batch_size, seed=seed, epoch=0):
        chosen = torch.from_numpy(draw.rows).to(outputs[0].device)
        batch = tuple(value[chosen] for value in outputs)
        losses.append(objective.losses((*batch, *shared), None)[: draw.scored])
    return float(widened(torch.cat(losses)).mean())
