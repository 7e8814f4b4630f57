"""Snapshot mode, phase 2: mimic scores at fixed weights from stored embeddings and tangents.

Phase 1 (``mimic_core.features.encoders.TangentEncoder``) has stored each sample's embeddings and
their derivatives along ``v / ||v||``; here batches of any size meet as matrices (method.md section
4). Letters: B batch, D embedding width. float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mimic_core.base.config import RunConfig, SnapshotConfig
from mimic_core.base.draws import Draw, draw_batches, fitting_batch_size, uid_words
from mimic_core.base.errors import ConfigError, ModelError, RunError
from mimic_core.base.schema import Planted, ScoreBatch
from mimic_core.features.encoders import TangentEncoder, embed_with_tangents
from mimic_core.features.loading import LoadedBatch
from mimic_core.features.stored import contrastive_scaling
from mimic_core.mimic import scores
from mimic_core.mimic.contrastive import Embedded, Scaling, score_logits, score_planted, steepest
from mimic_core.mimic.losses import contrastive_losses, require_finite, widened
from mimic_core.mimic.scores import TaskVector
from mimic_core.models import clip
from mimic_core.models.layers import default_mimic_layers, reinitialised
from mimic_core.models.load import LoadedModel, load_model, weights_identity
from mimic_core.runs.featureset import FeatureSet
from mimic_core.stats.direction import planted_places, planting


class Snapshot:
    """Scores of one model at fixed weights; every repeat draws its batches afresh.

    Args:
        tangents: A finished feature set filled by a ``TangentEncoder``.
        scaling: Logit scale and bias of the scored model, with its derivatives.

    Raises:
        ConfigError: Method ``cos``, which two-phase scoring cannot give.
        ScoreError: The pool is too small.
    """

    def __init__(
        self,
        tangents: FeatureSet,
        scaling: Scaling,
        config: SnapshotConfig,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        require_projection_method(config)
        self.config = config
        self.device = torch.device(device)
        self._scaling = scaling
        self._names = ("image_embedding", "text_embedding", "image_tangent", "text_tangent")
        self._arrays = {n: tangents.array(n) for n in self._names if tangents.has_array(n)}
        samples = tangents.samples
        self._words = uid_words(samples["uid"])
        self._partners = planting(self._words, samples, "caption")
        self.batch_size = fitting_batch_size(config.batch_size, len(self._words))

    def run(self, repeat: int) -> Iterator[ScoreBatch]:
        """Score the whole pool once, with the batches of ``repeat``."""
        draws = draw_batches(
            self._words, batch_size=self.batch_size, seed=self.config.seed, epoch=repeat
        )
        for draw in draws:
            parts = [self._take(name, draw.rows) for name in self._names]
            image, text = parts[0], parts[1]
            assert image is not None  # every encoder stores both embeddings
            assert text is not None
            batch = Embedded(image, text, parts[2], parts[3])
            scored = score_logits(batch, self._scaling)
            require_finite(scored.losses, step=draw.step)
            require_finite(scored.scores, what="score", step=draw.step)
            weights = scores.mimic_weights(scored.scores, temperature=self.config.temperature)
            columns = (scored.losses, scored.scores, weights)
            kept = [values[: draw.scored].cpu().numpy() for values in columns]
            planted = self._planted(draw, batch)
            yield ScoreBatch(repeat, draw.step, draw.rows[: draw.scored], *kept, planted=planted)

    def _planted(self, draw: Draw, batch: Embedded) -> Planted | None:
        """Scores with captions that are wrong on purpose."""
        places, rows, partners = planted_places(draw, self._partners)
        if not len(places):
            return None
        at = torch.from_numpy(places).to(self.device)
        text = self._take("text_embedding", partners)
        assert text is not None  # every encoder stores both embeddings
        along = batch.image_tangent
        pairs = Embedded(
            batch.image[at],
            text,
            None if along is None else along[at],
            self._take("text_tangent", partners),
        )
        scores = score_planted(batch, self._scaling, pairs, at).scores
        return Planted(rows, partners, scores.cpu().numpy())

    def _take(self, name: str, rows: np.ndarray) -> Tensor | None:
        array = self._arrays.get(name)
        return None if array is None else torch.from_numpy(array.take(rows)).to(self.device)


def require_projection_method(config: SnapshotConfig) -> None:
    """Refuse method ``cos`` before any work is done.

    Raises:
        ConfigError: Always for ``cos``: a gradient's norm needs the activations of the whole batch,
            which the two phases never hold together.
    """
    if config.method == "cos":
        raise ConfigError(
            "snapshot mode cannot give the cosine: it needs the norm of every sample's gradient, "
            "which scoring in two phases never builds",
            got="cos",
            allowed="proj",
            next_step="use --method proj, --mode probe with --batch-size up to "
            f"{scores.COS_MAX_BATCH}, or mimic_core.mimic.scores.mimic_scores(method='cos') "
            "in your loop",
        )


def scaling_with_tangents(module: nn.Module, vector: TaskVector) -> Scaling:
    """The model's logit scale and bias, with their derivatives where they are mimic layers.

    The scale is stored as its logarithm, so its derivative is ``exp(s) * s*``.
    """
    scaling = contrastive_scaling(module)
    unit = {name: float(vector.directions[name]) / vector.norm for name in _scalars(vector)}
    return Scaling(
        loss=scaling.loss,
        scale=scaling.scale,
        bias=scaling.bias,
        scale_tangent=scaling.scale * unit.get("logit_scale", 0.0),
        bias_tangent=unit.get("logit_bias", 0.0),
    )


def _scalars(vector: TaskVector) -> list[str]:
    return [name for name in ("logit_scale", "logit_bias") if name in vector.directions]


def self_check(module: nn.Module, vector: TaskVector, batch: LoadedBatch) -> float:
    """Largest difference between two-phase scores and reverse mode over a small batch.

    Relative to the batch's largest score, or to a hundredth of the largest derivative that a logit
    can have: where the model tells the samples apart with ease, both scores are rounding errors.
    Runs in float32 whatever the run's precision.

    The parameters' ``requires_grad`` is as before on return.
    """
    with torch.no_grad():
        embedded = embed_with_tangents(module, vector, batch, device=batch.tokens.device)
        scaling = scaling_with_tangents(module, vector)
        ours = score_logits(embedded, scaling).scores
    parameters = [module.get_parameter(name) for name in vector.layers]
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        losses = module_losses(module, batch)
        expected = [_reverse_score(one, parameters, vector) for one in losses]
    finally:
        for parameter, wanted in zip(parameters, before, strict=True):
            parameter.requires_grad_(wanted)
    difference = (ours.cpu() - torch.tensor(expected)).abs().max()
    return float(difference) / max(
        float(ours.abs().max()), 0.01 * steepest(embedded, scaling), 1e-30
    )


def module_losses(module: nn.Module, batch: LoadedBatch) -> Tensor:
    """Losses (B,) of a batch by an ordinary forward pass of the whole model."""
    image = clip.encode_image(module, batch.images, normalize=True)[batch.image_of]
    text = clip.encode_text(module, batch.tokens, normalize=True)
    return contrastive_losses(image, text, clip.logit_scale(module), clip.logit_bias(module))


def _reverse_score(loss: Tensor, parameters: list[nn.Parameter], vector: TaskVector) -> float:
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    total = 0.0
    for gradient, direction in zip(gradients, vector.directions.values(), strict=True):
        if gradient is not None:
            total -= float((widened(gradient).cpu() * widened(direction).cpu()).sum())
    return total / vector.norm


@dataclass(frozen=True)
class Pair:
    """The scored model, its task vector to the reference, and the encoder of its tangents."""

    module: nn.Module
    vector: scores.TaskVector
    encoder: TangentEncoder

    @property
    def identity(self) -> dict[str, object]:
        """What distinguishes its tangents from another pair's on the same reference."""
        return {
            "scored_model": weights_identity(self.module),
            "mimic_layers": list(self.vector.layers),
        }


def prepare_pair(
    config: RunConfig,
    snapshot: SnapshotConfig,
    reference: LoadedModel,
    device: torch.device,
    note: Callable[[str], None],
) -> Pair:
    """Load or make the scored model and check that it goes with ``reference``.

    Raises:
        ModelError: It cannot be loaded, differs in architecture, or a mimic layer does not exist.
        ScoreError: Model and reference are equal on the mimic layers.
    """
    layers = snapshot.mimic_layers or default_mimic_layers(reference.module)
    if snapshot.model is None:
        module = reinitialised(reference.module, layers, seed=snapshot.seed)
        note("model: the reference with its mimic layers re-initialised")
    else:
        # Both models see the reference's images, so the model's own preprocessing is not asked for.
        loaded = load_model(snapshot.model, like=reference.preprocessing)
        require_same_architecture(loaded.module, reference.module)
        module = loaded.module.to(device)
        note(f"model: {snapshot.model}")
    note(f"mimic layers: {', '.join(layers)}")
    vector = scores.task_vector(module, reference.module, layers)
    return Pair(module, vector, TangentEncoder(module, vector, device, config.precision))


def require_same_architecture(model: nn.Module, reference: nn.Module) -> None:
    """Raise a ``ModelError`` that names the first differing parameters of two modules."""
    ours = {name: tuple(p.shape) for name, p in model.named_parameters()}
    theirs = {name: tuple(p.shape) for name, p in reference.named_parameters()}
    kinds = [sorted({type(m).__name__ for m in both.modules()}) for both in (model, reference)]
    if kinds[0] != kinds[1]:
        raise ModelError(
            "model and reference differ in architecture: they are built of different layers",
            got=", ".join(sorted(set(kinds[0]) ^ set(kinds[1]))),
            allowed="the same kinds of layers in both (GELU and QuickGELU are two kinds)",
            next_step="choose a model and a reference of one architecture",
        )
    differing = [
        f"{name} {ours.get(name, 'missing')} against {theirs.get(name, 'missing')}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if differing:
        raise ModelError(
            "model and reference differ in architecture",
            got=f"{len(differing)} parameters, first: {'; '.join(differing[:3])}",
            allowed="the same parameter names and shapes in both",
            next_step="choose a model and a reference of one architecture",
        )


def require_same_samples(features: FeatureSet, tangents: FeatureSet) -> None:
    """Raise a ``RunError`` unless both feature sets hold the same samples in the same order."""
    if not features.samples["uid"].equals(tangents.samples["uid"]):
        raise RunError(
            "the images of the pool have changed between two passes over them",
            got=f"{features.samples.height} and {tangents.samples.height} readable samples",
            allowed="the same readable samples in both",
            next_step=f"delete {tangents.path} and {features.path}, then run the command again",
        )
