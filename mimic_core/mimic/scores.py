"""The heart: task vector, forward-mode mimic scores, mimic weights (arXiv 2501.06708).

The mimic score of sample i is ``m_i = <-g_i, v> / ||v||``: how far its gradient step goes towards
the reference, where ``v = theta_ref - theta_t`` on the mimic layers. That is minus a directional
derivative, ``m_i = -d/de loss_i(theta_t + e v/||v||)``, so one forward-mode pass gives the scores
of the whole batch and no per-sample gradient is ever built (method.md section 4).

In a training loop::

    vector = task_vector(model, reference, layers)
    losses, scores = mimic_scores(model, vector, lambda: clip_losses(*model(images, texts)))
    weights = mimic_weights(scores, temperature=0.05)
    (weights * losses).sum().backward()

Letters: B batch. Pure functions on torch modules; nothing here knows of files or datasets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mimic_core.base.config import Method
from mimic_core.base.errors import ModelError, ScoreError, require_layer
from mimic_core.mimic.forward_mode import directional_derivative
from mimic_core.mimic.losses import require_finite

# ``cos`` needs one reverse pass per sample, each through the whole batch: quadratic in B.
COS_MAX_BATCH = 512


@dataclass(frozen=True)
class TaskVector:
    """Direction from the model to the reference on the mimic layers.

    ``directions`` maps exact parameter names to ``theta_ref - theta_t`` (shape of the parameter);
    ``norm`` is the Euclidean norm over all of them together.
    """

    directions: Mapping[str, Tensor]
    norm: float

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the mimic layers."""
        return tuple(self.directions)

    def unit(self) -> dict[str, Tensor]:
        """The directions divided by ``norm``."""
        return {name: direction / self.norm for name, direction in self.directions.items()}


def task_vector(model: nn.Module, reference: nn.Module, layers: Sequence[str]) -> TaskVector:
    """``theta_ref - theta_t`` restricted to ``layers`` (method.md section 1).

    Args:
        model: The model that is scored or trained; gives theta_t.
        reference: The better model of the same architecture; gives theta_ref.
        layers: Exact parameter names, as in ``model.named_parameters()``.

    Raises:
        ModelError: A name does not exist (near matches are listed), or the two models differ.
        ScoreError: The two models are equal on the mimic layers, or differ by a non-finite value.
    """
    if not layers:
        raise ModelError(
            "no mimic layer is given", allowed="one or more names", next_step="name one"
        )
    theirs = dict(reference.named_parameters())
    for name in layers:
        require_layer(name, dict(model.named_parameters()))
    return vector_towards(model, {name: theirs.get(name) for name in dict.fromkeys(layers)})


def vector_towards(model: nn.Module, target: Mapping[str, Tensor | None]) -> TaskVector:
    """The task vector to ``target``, the reference's values by mimic layer (None: it has none).

    Raises:
        ModelError: The two models differ in a shape.
        ScoreError: As for ``task_vector``.
    """
    directions = {}
    for name, other in target.items():
        ours = model.get_parameter(name)
        if other is None or other.shape != ours.shape:
            shape = "no such parameter" if other is None else tuple(other.shape)
            raise ModelError(
                f"model and reference differ in architecture at {name}",
                got=f"{tuple(ours.shape)} and {shape}",
                allowed="the same parameter names and shapes in both",
                next_step="choose a model and a reference of one architecture",
            )
        directions[name] = _wide(other).to(ours.device) - _wide(ours)
    # Python's floats are doubles; not every device has them.
    norm = math.hypot(*(float(torch.linalg.vector_norm(d)) for d in directions.values()))
    if norm == 0.0 or not math.isfinite(norm):
        raise ScoreError(
            "the task vector has no direction: model and reference "
            + ("are equal on the mimic layers" if norm == 0.0 else "differ by a non-finite value"),
            got=f"norm {norm} over {', '.join(directions)}",
            allowed="a finite norm above zero",
            next_step="choose another model, or mimic layers in which the two differ",
        )
    return TaskVector(directions, norm)


def mimic_scores(
    model: nn.Module,
    vector: TaskVector,
    per_sample_loss: Callable[[], Tensor],
    *,
    method: Method = "proj",
) -> tuple[Tensor, Tensor]:
    """Losses and mimic scores of a batch, in one forward pass.

    Args:
        model: Holds the mimic layers; unchanged on return.
        vector: Task vector at the model's present weights.
        per_sample_loss: Runs the forward pass of ``model`` and returns its losses (B,).
        method: ``proj``: the projection. ``cos``: divided by each gradient's norm as well, at the
            price of one reverse pass per sample; at most ``COS_MAX_BATCH`` samples. A sample whose
            gradient is exactly zero has the cosine 0.

    Returns:
        losses (B,): attached to the graph as in an ordinary forward pass, so that weighted losses
        can be sent backward (the dual level is left by then).
        scores (B,): detached float32; higher pulls the model more towards the reference.

    Raises:
        ScoreError: A loss is not finite, the losses do not depend on the mimic layers, or the batch
            is too large for ``cos``.
    """
    if method == "cos":
        return _cosine_scores(model, vector, per_sample_loss)
    losses, tangents = directional_derivative(model, vector.unit(), lambda: (per_sample_loss(),))[0]
    if losses.ndim != 1:
        raise ScoreError(
            "the function must return one loss for each sample",
            got=f"shape {tuple(losses.shape)}",
            allowed="shape (B,)",
            next_step='leave out the mean over the batch (reduction="none")',
        )
    require_finite(losses)
    if tangents is None:
        raise ScoreError(
            "the losses do not depend on the mimic layers",
            got=", ".join(vector.layers),
            next_step="choose mimic layers that the forward pass uses",
        )
    scores = -tangents.float()
    require_finite(scores, what="score")
    return losses, scores


def mimic_weights(scores: Tensor, *, temperature: float) -> Tensor:
    """Softmax of ``scores`` (B,) over the batch: weights (B,) that sum to 1, neutral value 1/B.

    Args:
        temperature: Divides the scores first; lower concentrates on the highest.

    Raises:
        ScoreError: The temperature is not a positive number, or a score is not finite.
    """
    if not 0 < temperature < float("inf"):
        raise ScoreError(
            "the temperature must be a positive number",
            got=temperature,
            allowed="above 0, typically 0.03 to 1",
            next_step="choose another temperature",
        )
    require_finite(scores, what="score")
    # The highest score becomes 0 first, so that a low temperature cannot overflow.
    divisor = max(temperature, torch.finfo(scores.dtype).tiny)
    return torch.softmax((scores - scores.max()) / divisor, dim=0)


def _cosine_scores(
    model: nn.Module, vector: TaskVector, per_sample_loss: Callable[[], Tensor]
) -> tuple[Tensor, Tensor]:
    """Projection scores divided by the norm of each sample's gradient on the mimic layers."""
    parameters = [model.get_parameter(name) for name in vector.layers]
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            losses, scores = mimic_scores(model, vector, per_sample_loss)
            norms = gradient_norms(losses, parameters)
    finally:
        for parameter, wanted in zip(parameters, before, strict=True):
            parameter.requires_grad_(wanted)
    return losses, cosines(scores, norms)


def require_cosine_batch(method: Method, batch_size: int) -> None:
    """Refuse method ``cos`` for batches so large that it would be slow beyond use.

    Raises:
        ScoreError: Method ``cos`` with more than ``COS_MAX_BATCH`` samples.
    """
    if method == "cos" and batch_size > COS_MAX_BATCH:
        raise ScoreError(
            "the batch is too large for method cos, which needs one reverse pass per sample",
            got=batch_size,
            allowed=f"at most {COS_MAX_BATCH} samples",
            next_step="use method proj, which has no such limit, or a smaller batch size",
        )


def gradient_norms(losses: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Norm (B,) of each loss's gradient over all ``parameters`` together, by reverse mode.

    Raises:
        ScoreError: More than ``COS_MAX_BATCH`` losses; the cost grows with the square of B.
    """
    require_cosine_batch("cos", len(losses))
    norms = []
    for loss in losses:
        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            loss, parameters, retain_graph=True, allow_unused=True
        )
        norms.append(_norm([g.float() for g in gradients if g is not None]))
    return torch.stack(norms)


def _wide(tensor: Tensor) -> Tensor:
    """Detached, in float32 or better: differences of half-precision weights are not rounded."""
    detached = tensor.detach()
    return detached if detached.dtype == torch.float64 else detached.float()


def cosines(scores: Tensor, norms: Tensor) -> Tensor:
    """Projections (B,) divided by the norms (B,) of the gradients; 0 for a zero gradient."""
    return torch.where(norms > 0, scores / norms, 0.0)


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    """Norm of all ``gradients`` together; the squares of tiny ones do not vanish."""
    peak = torch.stack([gradient.abs().max() for gradient in gradients]).max()
    safe = torch.where(peak > 0, peak, 1.0)
    return peak * torch.stack([(g / safe).square().sum() for g in gradients]).sum().sqrt()
