"""Logistic regression on cached features: a reference head from trusted labels.

Full-batch L-BFGS (scipy's) on the mean cross-entropy plus a penalty on the weight; equal inputs
give equal heads. Losses and gradients are computed in blocks of rows on the device, so the features
of a million samples need not fit into memory. That is why it is not scikit-learn's, which wants all
of them in float32 or float64 on the CPU; it comes to the same loss within 1e-8 in about the same
time, 2.3 s of a processor against 2.0 s for 20,000 samples of width 512 in 20 classes
(``bench/linear_heads.py``). Letters: T trusted samples, F width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mimic_core.base.errors import ScoreError
from mimic_core.features.stored import IN_MEMORY_BYTES
from mimic_core.mimic.losses import widened

BLOCK = 65_536
MAX_ITERATIONS = 500
GRADIENT_TOLERANCE = 1e-6
# Where rounding ends the line search before the tolerance is met, this is still at the optimum.
_NEAR_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """Weight (C, F) and bias (C,), float32, CPU. ``converged``: no better ones can be found."""

    weight: Tensor
    bias: Tensor
    converged: bool


def fit_logistic(
    take: Callable[[np.ndarray], Tensor],
    targets: np.ndarray,
    *,
    classes: int,
    width: int,
    weight_decay: float,
    begin: LogisticFit | None = None,
    tolerance: float = GRADIENT_TOLERANCE,
) -> LogisticFit:
    """The penalised maximum-likelihood classifier.

    For the fit, features are centred and divided by their root mean square: it converges in a few
    hundred steps, and one ``weight_decay`` suits the unit embeddings of CLIP as well
    as the raw features of a ResNet. The head that comes back is for the features as they are.

    Args:
        take: Features (B, F) float32 of positions (B,) among the T samples.
        targets: Class numbers (T,) int64.
        weight_decay: Half of it times the squared norm of the (scaled) weight is the penalty.
        begin: A classifier of the same shape to begin at; None begins at zero.
        tolerance: The largest entry of the gradient at which the fit ends.

    Raises:
        ScoreError: The features are all the same, or the fit ran into numbers that are not finite.
    """
    from scipy.optimize import minimize

    centre, scale = _moments(take, len(targets))

    def scaled() -> Iterator[tuple[np.ndarray, Tensor]]:
        for rows in _blocks(len(targets)):
            block = take(rows)
            yield targets[rows], (block - centre.to(block.device)) / scale

    held = list(scaled()) if 4 * len(targets) * width <= IN_MEMORY_BYTES else None

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        flat = torch.from_numpy(point)
        weight, bias = flat[: classes * width].view(classes, width), flat[classes * width :]
        loss, gradient = 0.5 * weight_decay * float(weight.square().sum()), torch.zeros_like(flat)
        for own, x in held or scaled():
            mean, d = _block_loss(x, own, weight, bias, len(targets))
            loss += mean
            gradient[: classes * width] += widened(d.T @ x).cpu().flatten()
            gradient[classes * width :] += widened(d.sum(0)).cpu()
        gradient[: classes * width] += weight_decay * weight.flatten()
        return loss, gradient.numpy()

    options = {"maxiter": MAX_ITERATIONS, "gtol": tolerance, "ftol": 1e-12}
    start = np.zeros(classes * width + classes)
    if begin is not None:
        own = widened(begin.bias) + widened(begin.weight) @ widened(centre).cpu()
        start = np.concatenate([(widened(begin.weight) * scale).flatten().numpy(), own.numpy()])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    if not np.isfinite(found.x).all():
        raise ScoreError(
            "the reference head cannot be trained on the trusted samples",
            got=str(found.message),
            next_step="look at the trusted samples' features, or give a head with --reference-head",
        )
    flat = torch.from_numpy(found.x)
    weight = flat[: classes * width].view(classes, width) / scale
    bias = flat[classes * width :] - weight @ widened(centre).cpu()
    nearly = found.status == 2 and np.abs(found.jac).max() < _NEAR_TOLERANCE
    converged = bool(found.success or nearly)
    return LogisticFit(weight.float().contiguous(), bias.float().contiguous(), converged)


def _block_loss(
    x: Tensor, targets: np.ndarray, weight: Tensor, bias: Tensor, total: int
) -> tuple[float, Tensor]:
    """Summed loss of a block over ``total``, and its gradient (B, C) by the logits."""
    logits = x @ weight.float().to(x.device).T + bias.float().to(x.device)
    labels = torch.from_numpy(targets).to(x.device)
    log = torch.log_softmax(logits, 1)
    rows = torch.arange(len(labels), device=x.device)
    gradient = log.exp()
    gradient[rows, labels] -= 1
    return float(-widened(log[rows, labels]).sum()) / total, gradient / total


def _moments(take: Callable[[np.ndarray], Tensor], count: int) -> tuple[Tensor, float]:
    """Mean (F,) of the features, and the root mean square of what is left without it."""
    centre = torch.stack([widened(take(rows)).sum(0) for rows in _blocks(count)]).sum(0) / count
    squares = [(widened(take(rows)) - centre).square().mean(1).sum() for rows in _blocks(count)]
    scale = float(torch.stack(squares).sum().div(count).sqrt())
    if not scale > 0:
        raise ScoreError(
            "the trusted samples all have the same features",
            got=scale,
            allowed="features that differ from sample to sample",
            next_step="use another reference model",
        )
    return centre.float(), scale


def _blocks(count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, BLOCK):
        yield np.arange(start, min(start + BLOCK, count))
