"""What scoring costs beside a plain forward pass: ratios measured side by side in one run.

    python bench/throughput.py [--arch ViT-B-32] [--batch 64] [--rounds 5] [--json FILE]

Everything works on the same tensors in memory: no decoding, no disk but the feature set. The
ways to compute are interleaved, round by round, and the median over the rounds is taken, so that a
busy machine slows all of them alike. Throughputs are over that of the plain forward pass: image and
text embeddings and their cosines, without gradients, which is what computing CLIP scores costs.

- snapshot: mimic scores by one forward-mode pass (last image MLP projection), both phases
- probe:    features, embeddings and CLIP scores stored on disk, then five epochs of Grad-Mimic
- reverse:  the same scores by one reverse pass per sample
- vmap:     the same scores by vmap over reverse passes, materialising every sample's gradient, as
            the method's authors do (theirs takes all parameters; here only the mimic layer)
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up
import torch
from measuring import forget_peak, interleaved, machine, own_peak, peak_in_own_process
from torch import Tensor, nn

from mimic_core.base import files
from mimic_core.base.config import ProbeConfig
from mimic_core.base.schema import SCHEMA_VERSION, SKIP_COLUMNS
from mimic_core.features.encoders import ReferenceEncoder, embed_with_tangents
from mimic_core.features.loading import LoadedBatch
from mimic_core.features.stored import store_ends
from mimic_core.mimic.contrastive import score_logits
from mimic_core.mimic.scores import TaskVector, task_vector
from mimic_core.models import clip
from mimic_core.models.devices import pick_device
from mimic_core.models.layers import default_mimic_layers, reinitialised
from mimic_core.models.load import LoadedModel, load_model
from mimic_core.runs.featureset import FeatureSet
from mimic_core.scoring.probe import Probe
from mimic_core.scoring.snapshot import module_losses, scaling_with_tangents

VMAP_CHUNK = 8  # gradients held at once by vmap; all of them would not fit


@dataclass(frozen=True)
class Setting:
    """A reference, a model to score, and batches of random tensors on one device."""

    loaded: LoadedModel
    model: nn.Module
    vector: TaskVector
    data: list[LoadedBatch]
    device: torch.device


def make_data(arch: str, batch: int, batches: int, device: torch.device) -> Setting:
    """Random weights and random images: the cost does not depend on either. No direction yet."""
    torch.manual_seed(0)
    loaded = load_model(f"{arch}:random:0")
    loaded.module.to(device)
    tokenizer = loaded.tokenizer
    assert tokenizer is not None  # every open_clip model has one
    data = [
        LoadedBatch(
            rows=np.arange(batch),
            images=torch.randn(batch, 3, *loaded.preprocessing["size"]),
            image_of=torch.arange(batch),
            tokens=tokenizer([f"picture {i} of {batch * batches}" for i in range(batch)]),
        ).to(device)
        for _ in range(batches)
    ]
    return Setting(loaded, loaded.module, TaskVector({}, 1.0), data, device)


def make_setting(arch: str, batch: int, batches: int, device: torch.device) -> Setting:
    """A pair of models: the reference, and a copy with its mimic layer drawn afresh."""
    setting = make_data(arch, batch, batches, device)
    layers = default_mimic_layers(setting.model)
    model = reinitialised(setting.model, layers, seed=1)
    return replace(setting, model=model, vector=task_vector(model, setting.model, layers))


def make_memory_setting(arch: str, batch: int, device: torch.device) -> Setting:
    """One model and nothing else, as a plain forward pass needs it; the task vector is made up."""
    setting = make_data(arch, batch, 1, device)
    layers = default_mimic_layers(setting.model)
    shapes = {name: setting.model.get_parameter(name).shape for name in layers}
    directions = {name: torch.randn(shape, device=device) for name, shape in shapes.items()}
    norm = sum(float(direction.norm()) ** 2 for direction in directions.values()) ** 0.5
    return replace(setting, vector=TaskVector(directions, norm))


def run_forward(setting: Setting) -> Tensor:
    """CLIP scores by a plain forward pass."""
    scores = []
    with torch.no_grad():
        for batch in setting.data:
            image = clip.encode_image(setting.model, batch.images, normalize=True)
            text = clip.encode_text(setting.model, batch.tokens, normalize=True)
            scores.append((image * text).sum(1).cpu())
    return torch.cat(scores)


def run_snapshot(setting: Setting) -> Tensor:
    """Mimic scores in two phases, as snapshot mode computes them."""
    scores = []
    head = scaling_with_tangents(setting.model, setting.vector)
    with torch.no_grad():
        for batch in setting.data:
            embedded = embed_with_tangents(
                setting.model, setting.vector, batch, device=setting.device
            )
            scores.append(score_logits(embedded, head).scores.cpu())
    return torch.cat(scores)


def run_probe(setting: Setting) -> Tensor:
    """Features to disk, then five epochs, as probe mode computes them."""
    encoder = ReferenceEncoder(setting.loaded.module, setting.device, "fp32", ("image", "text"))
    images = [encoder.encode_images(batch.images) for batch in setting.data]
    texts = [encoder.encode_texts(batch.tokens, batch.labels) for batch in setting.data]
    parts = [image[0] | text[0] for image, text in zip(images, texts, strict=True)]
    arrays = {name: torch.cat([one[name] for one in parts]).cpu().numpy() for name in parts[0]}
    cosines = [(image[1] * text[1]).sum(1) for image, text in zip(images, texts, strict=True)]
    scores = torch.cat(cosines).cpu().numpy()
    samples = pl.DataFrame({"uid": [f"{i:032x}" for i in range(len(scores))], "clip_score": scores})
    with tempfile.TemporaryDirectory() as folder:
        info = {
            "schema_version": SCHEMA_VERSION,
            "arrays": list(encoder.arrays),
            "shards": {"0": len(samples)},
        }
        files.write_json(Path(folder) / "features.json", info)
        features = FeatureSet.open(Path(folder))
        features.write_shard("0", samples, pl.DataFrame(schema=SKIP_COLUMNS), arrays)
        store_ends(features, setting.loaded.module, ("image", "text"))
        config = ProbeConfig(batch_size=len(setting.data[0].rows), epochs=5)
        probe = Probe(features, config, device=setting.device)
        visits = [batch for epoch in range(config.epochs) for batch in probe.run(epoch)]
    return torch.cat([torch.from_numpy(batch.mimic_score) for batch in visits])


def run_reverse(setting: Setting) -> Tensor:
    """One reverse pass per sample, restricted to the mimic layers."""
    scores = []
    parameters = [setting.model.get_parameter(name) for name in setting.vector.layers]
    directions = [setting.vector.directions[name] for name in setting.vector.layers]
    for parameter in parameters:
        parameter.requires_grad_(True)
    for batch in setting.data:
        for loss in module_losses(setting.model, batch):
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            products = [(g * v).sum() for g, v in zip(gradients, directions, strict=True)]
            scores.append(-torch.stack(products).sum() / setting.vector.norm)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return torch.stack(scores).cpu()


def run_vmap(setting: Setting) -> Tensor:
    """Every sample's gradient materialised by vmap, then multiplied with the task vector."""
    scores = []
    names = setting.vector.layers
    parameters = {name: setting.model.get_parameter(name).detach() for name in names}
    wrapper = _Losses(setting.model)
    for batch in setting.data:

        def losses(values: dict[str, Tensor], batch: LoadedBatch = batch) -> Tensor:
            renamed = {f"model.{name}": value for name, value in values.items()}
            out: Tensor = torch.func.functional_call(wrapper, renamed, (batch,))
            return out

        gradients = torch.func.jacrev(losses, chunk_size=VMAP_CHUNK)(parameters)
        products = [
            (gradients[name] * setting.vector.directions[name]).flatten(1).sum(1) for name in names
        ]
        scores.append((-torch.stack(products).sum(0) / setting.vector.norm).cpu())
    return torch.cat(scores)


class _Losses(nn.Module):
    """A model as a module that returns per-sample losses, for ``functional_call``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: LoadedBatch) -> Tensor:
        """Losses (B,) of a batch."""
        return module_losses(self.model, batch)


WAYS: dict[str, Callable[[Setting], Tensor]] = {
    "forward": run_forward,
    "snapshot": run_snapshot,
    "probe": run_probe,
    "reverse": run_reverse,
    "vmap": run_vmap,
}


def require_equal_scores(setting: Setting) -> None:
    """Stop unless the three exact ways give the same scores: else their costs mean nothing."""
    ours = run_snapshot(setting)
    for name in ("reverse", "vmap"):
        difference = float((WAYS[name](setting) - ours).abs().max() / ours.abs().max())
        print(f"{name} against snapshot: largest relative difference {difference:.1e}")
        if difference > 1e-4:
            sys.exit(f"the scores by {name} differ from ours")


def measure(setting: Setting, rounds: int) -> dict[str, float]:
    """Median seconds of each way."""
    ways = {name: functools.partial(way, setting) for name, way in WAYS.items()}
    return interleaved(ways, rounds, setting.device)


def peak_memory(way: str, arguments: argparse.Namespace) -> float:
    """Peak memory in bytes of ``way`` in a process of its own."""
    options = ["--memory-of", way, "--arch", arguments.arch, "--batch", str(arguments.batch)]
    options += ["--batches", "1"]
    if arguments.device:
        options += ["--device", arguments.device]
    return peak_in_own_process(__file__, options)


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="ViT-B-32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=2, help="batches per measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--memory-of", choices=list(WAYS), default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    if arguments.memory_of:
        setting = make_memory_setting(arguments.arch, arguments.batch, device)
        forget_peak(device)
        for _ in range(3):
            WAYS[arguments.memory_of](setting)
        print(own_peak(device))
        return
    setting = make_setting(arguments.arch, arguments.batch, arguments.batches, device)
    require_equal_scores(setting)
    seconds = measure(setting, max(arguments.rounds, 1))
    memory = {way: peak_memory(way, arguments) for way in ("forward", "snapshot")}
    print(
        f"{arguments.arch}, batch {arguments.batch} x {arguments.batches}, fp32, "
        f"{machine(device)}, median of {arguments.rounds} interleaved rounds\n"
    )
    print("| way | seconds | throughput over forward |\n|---|---|---|")
    for way, value in seconds.items():
        print(f"| {way} | {value:.3f} | {seconds['forward'] / value:.3f} |")
    ratio = memory["snapshot"] / memory["forward"]
    print(f"\npeak memory, snapshot over forward: {ratio:.3f}")
    result: dict[str, object] = {
        f"{way}_over_forward": seconds["forward"] / seconds[way] for way in WAYS if way != "forward"
    }
    result |= {"snapshot_memory_over_forward": ratio, "device": machine(device)}
    result["seconds"] = seconds
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
