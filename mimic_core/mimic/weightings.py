"""The compared weightings of a batch by name: what the update multiplies each sample's loss with.

With g_i the gradient of loss i on the mimic layers, m_i the mimic score, c the mean gradient of
samples to compare with, and softmax over the batch at the run's temperature (method.md section 2):

- ``uniform``     1/B
- ``mimic``       softmax of m_i
- ``grand``       softmax of ||g_i|| (GraNd, Paul et al., arXiv 2107.07075)
- ``agra``        equal weights where <g_i, c> > 0, c from another batch of the pool, else none
                  (AGRA, Sedova et al., arXiv 2306.04502); all equal where no sample is positive
- ``grad_match``  least-squares match of c by non-negative weights, c from another batch of the pool
- ``rho``         softmax of loss minus the reference's loss (Rho-loss, Mindermann et al.,
                  arXiv 2206.07137)
- ``influence``   softmax of <g_i, c> / ||c||, c from clean samples: the mimic score with the
                  direction of a descent on clean samples in the place of the task vector; its
                  cosine where the method is ``cos``

Two more are what the method's authors compare with under the names Grad-Match and Rho-loss, which
differ from the definitions above (``docs/method.md`` says how):

- ``grad_match_single``  <g_i, c> / ||g_i||^2, c the mean gradient of the own batch: the multiple of
                  each gradient alone that comes closest to c; may be negative
- ``rho_attached``  the gradient of sum_i softmax(l - l_ref)_i l_i with the softmax differentiated
                  too, so w_i (1 + l_i - sum_j w_j l_j), for all parameters and without temperature

All but ``grad_match_single`` sum to 1. A weighting asks a ``Geometry`` for what it needs of the
gradients and never builds them. Letters: B batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from mimic_core.base.config import Method, WeightingName
from mimic_core.base.errors import ScoreError
from mimic_core.mimic.grad_match import match_weights
from mimic_core.mimic.losses import require_finite
from mimic_core.mimic.scores import TaskVector, cosines, mimic_weights

T = TypeVar("T")
Comparison = Literal["pool", "clean"]


class Geometry(Protocol):
    """The gradients of one batch's losses on the mimic layers, as inner products."""

    @property
    def losses(self) -> Tensor:
        """Losses (B,), detached, float32."""

    def products(self, direction: Mapping[str, Tensor]) -> Tensor:
        """<g_i, direction> (B,); ``direction`` maps the mimic layers to their shapes."""

    def norms(self) -> Tensor:
        """||g_i|| (B,) over all mimic layers together."""

    def gram(self) -> Tensor:
        """<g_i, g_j> (B, B)."""


@dataclass(frozen=True)
class Weighed:
    """Weights (B,) of a batch; ``note`` says why they are uniform where they had to be."""

    weights: Tensor
    note: str | None = None


@dataclass(frozen=True)
class Given:
    """What a weighting may use: the batch's geometry, and what ``batch_weights`` was given."""

    geometry: Geometry
    temperature: float
    method: Method
    scores: Tensor | None
    comparison: Mapping[str, Tensor] | None
    reference_losses: Tensor | None


def batch_weights(
    name: WeightingName,
    geometry: Geometry,
    *,
    temperature: float,
    method: Method = "proj",
    scores: Tensor | None = None,
    comparison: Mapping[str, Tensor] | None = None,
    reference_losses: Tensor | None = None,
) -> Weighed:
    """Weights of one batch by the weighting ``name``.

    Args:
        geometry: Of the batch, at the present weights.
        temperature: Divides what a softmax is taken of.
        method: How ``influence`` measures: a projection, or a cosine.
        scores: Mimic scores (B,); ``mimic`` needs them.
        comparison: Mean gradient on the mimic layers of other samples; ``agra``, ``grad_match`` and
            ``influence`` need it (see ``needs_comparison``).
        reference_losses: Losses (B,) under the reference; ``rho`` and ``rho_attached`` need them.

    Raises:
        ScoreError: What the weighting needs is missing, or a value is not finite.
    """
    given = Given(geometry, temperature, method, scores, comparison, reference_losses)
    return _WEIGHTINGS[name](given)


def needs_comparison(name: WeightingName) -> Comparison | None:
    """Where the samples come from that the weighting compares with; None if it does not."""
    found: dict[str, Comparison] = {"agra": "pool", "grad_match": "pool", "influence": "clean"}
    return found.get(name)


def needs_reference_losses(name: WeightingName) -> bool:
    """Whether the weighting needs the losses under the reference."""
    return name in {"rho", "rho_attached"}


def weighs_everything(name: WeightingName) -> bool:
    """Whether the weights count for all parameters, whatever the settings say.

    Equal weights are the mean gradient anyway; ``rho_attached`` is the gradient of one loss.
    """
    return name in {"uniform", "rho_attached"}


def mimic_scores_of(geometry: Geometry, vector: TaskVector, *, method: Method = "proj") -> Tensor:
    """Mimic scores (B,) from a geometry: minus the products with the unit task vector."""
    scores = -geometry.products(vector.unit())
    require_finite(scores, what="score")
    return cosines(scores, geometry.norms()) if method == "cos" else scores


def _uniform(given: Given) -> Weighed:
    losses = given.geometry.losses
    return Weighed(torch.full_like(losses, 1 / len(losses)))


def _mimic(given: Given) -> Weighed:
    return _softmax(_required(given.scores, "mimic scores", "scores"), given)


def _grand(given: Given) -> Weighed:
    return _softmax(given.geometry.norms(), given)


def _rho(given: Given) -> Weighed:
    expected = _required(given.reference_losses, "losses under the reference", "reference_losses")
    return _softmax(given.geometry.losses - expected, given)


def _rho_attached(given: Given) -> Weighed:
    losses = given.geometry.losses
    expected = _required(given.reference_losses, "losses under the reference", "reference_losses")
    chosen = mimic_weights(losses - expected, temperature=1.0)
    return Weighed(chosen * (1 + losses - (chosen * losses).sum()))


def _agra(given: Given) -> Weighed:
    comparison = _required(given.comparison, "a comparison gradient", "comparison")
    # The sign of the cosine is the sign of the product: no gradient's norm is needed.
    positive = given.geometry.products(comparison) > 0
    if not bool(positive.any()):
        return Weighed(_uniform(given).weights, "no sample goes with the comparison batch")
    return Weighed(positive.float() / positive.sum())


def _grad_match(given: Given) -> Weighed:
    comparison = _required(given.comparison, "a comparison gradient", "comparison")
    weights = match_weights(given.geometry.gram(), given.geometry.products(comparison))
    total = float(weights.sum())
    if total == 0.0:
        return Weighed(_uniform(given).weights, "no sample helps to match the comparison batch")
    return Weighed(weights / total)


def _grad_match_single(given: Given) -> Weighed:
    gram = given.geometry.gram()
    squares = gram.diagonal()
    # A gradient of zero moves nothing, whatever its weight.
    return Weighed(torch.where(squares > 0, gram.mean(1) / squares, 0.0))


def _influence(given: Given) -> Weighed:
    comparison = _required(given.comparison, "the clean samples' gradient", "comparison")
    length = math.hypot(*(float(torch.linalg.vector_norm(part)) for part in comparison.values()))
    if length == 0.0:
        return Weighed(_uniform(given).weights, "the clean samples' gradient is zero")
    scores = given.geometry.products(comparison) / length
    if given.method == "cos":
        scores = cosines(scores, given.geometry.norms())
    return _softmax(scores, given)


def _softmax(values: Tensor, given: Given) -> Weighed:
    return Weighed(mimic_weights(values, temperature=given.temperature))


_WEIGHTINGS: dict[WeightingName, Callable[[Given], Weighed]] = {
    "uniform": _uniform,
    "mimic": _mimic,
    "grand": _grand,
    "agra": _agra,
    "grad_match": _grad_match,
    "grad_match_single": _grad_match_single,
    "rho": _rho,
    "rho_attached": _rho_attached,
    "influence": _influence,
}


def _required(value: T | None, what: str, argument: str) -> T:
    if value is None:
        raise ScoreError(
            f"this weighting needs {what}",
            got=None,
            allowed=f"the argument {argument}",
            next_step=f"give {argument}",
        )
    return value
