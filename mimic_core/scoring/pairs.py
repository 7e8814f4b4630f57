"""The pair of a snapshot run: the scored model beside its reference, checked to fit together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from mimic_core.base.errors import ModelError, RunError
from mimic_core.base.schema import RunConfig, SnapshotConfig
from mimic_core.features.encoders import TangentEncoder
from mimic_core.mimic import scores
from mimic_core.models.load import (
    LoadedModel,
    default_mimic_layers,
    load_model,
    reinitialised,
    weights_identity,
)
from mimic_core.runs.featureset import FeatureSet


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
        loaded = load_model(snapshot.model, preprocess=config.preprocess or "openai")
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
