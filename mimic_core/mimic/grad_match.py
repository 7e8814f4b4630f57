"""Grad-Match: the non-negative weights whose weighted gradient comes closest to a given one.

``w = argmin_{w >= 0} ||sum_i w_i g_i - c||^2`` (Killamsetty et al., arXiv 2103.00123, without its
limit on the number of samples). Only inner products of gradients enter: with the Gram matrix
``K_ij = <g_i, g_j>`` and ``b_i = <g_i, c>`` the objective is ``w'K w - 2 b'w + const``. Factored as
``K = R'R`` it becomes a least-squares problem of B rows, which scipy's active-set solver ends
exactly, whatever the number of parameters.

Letters: B batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mimic_core.base.errors import ScoreError
from mimic_core.mimic.losses import widened

# Directions in which the batch's gradients extend less than this share of the longest are rounding.
_NEGLIGIBLE = 1e-10
# Of the active-set solver, for each sample of the batch; scipy's own 3 is too few for some batches.
_ITERATIONS = 30


def match_weights(gram: Tensor, target: Tensor) -> Tensor:
    """Weights (B,) >= 0 that minimise ``||sum_i w_i g_i - c||``; they need not sum to 1.

    Args:
        gram: ``<g_i, g_j>`` (B, B).
        target: ``<g_i, c>`` (B,).

    Returns:
        (B,) float32 on the device of ``gram``; all zero where no sample points towards ``c``.

    Raises:
        ScoreError: The solver does not come to an end.
    """
    from scipy.optimize import nnls

    kernel = widened(gram).cpu().numpy()
    products = widened(target).cpu().numpy()
    # K = V diag(s) V': with R = diag(sqrt(s)) V', the right-hand side r must satisfy R'r = b.
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    kept = values > _NEGLIGIBLE * max(float(values[-1]), 0.0)
    if not kept.any():
        return torch.zeros_like(gram[0], dtype=torch.float32)
    roots = np.sqrt(values[kept])
    rows = roots[:, None] * vectors[:, kept].T
    right = (vectors[:, kept].T @ products) / roots
    # The scale of the problem is that of squared gradients, which may be tiny; w does not have it.
    scale = float(np.abs(rows).max())
    try:
        weights, _ = nnls(rows / scale, right / scale, maxiter=_ITERATIONS * len(gram))
    except RuntimeError as error:
        raise ScoreError(
            f"the weights of Grad-Match cannot be found for a batch ({error})",
            got=f"{len(gram)} samples",
            allowed=f"a solution within {_ITERATIONS} iterations for each sample",
            next_step="use another batch size, or another weighting",
        ) from error
    return torch.from_numpy(weights).float().to(gram.device)
