r"""What a step of Grad-Mimic training costs beside a plain step: ratios measured side by side.

    python bench/training_step.py [--rounds 5] [--models classifier pairs] [--json FILE]
    python bench/training_step.py --models classifier linear --arch vit_tiny_patch16_224 \
        --batch 32 --steps plain mimic vmap --cpu-time --no-memory

Models with random weights, on random tensors in memory, float32, AdamW:

- classifier: timm's vit_base_patch16_224, 1000 classes, batch 32; mimic layer: the head
- linear:     the same with all weights frozen but the head's (linear probing; when asked for)
- pairs:      open_clip's ViT-B-32, batch 64; mimic layer: the image tower's last MLP projection

A plain step is forward pass, mean loss, backward pass, torch's AdamW: no Mimicscope. The steps
of all weightings log losses, mimic scores and weights, and update with the re-weighted gradient:
``mimic`` is Grad-Mimic with weights on the mimic layers (the default), ``mimic_all`` with weights
on all parameters. ``agra``, ``grad_match`` and ``influence`` include their comparison batch:
another batch of the same size, and for ``influence`` as many clean samples; ``rho`` includes a
forward pass of the reference, although training takes these losses from the stored features.
``vmap`` (classifiers alone, when asked for) is Grad-Mimic as its formula is read literally: the
gradients of all trainable weights of every sample, by ``vmap`` of ``grad``, held at once; scores
by the definition, the re-weighted sum for the mimic layers and the mean for all others.

Steps are interleaved round by round, medians are taken, and peak memory is that of a process that
makes one kind of step only. With ``--cpu-time`` seconds are those of the processor that one thread
took, which a machine that others use too lengthens less.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import repository  # noqa: F401 - first: the packages lie one level up
import torch
from measuring import forget_peak, interleaved, machine, own_peak, peak_in_own_process
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mimic_core.base.config import TrainConfig
from mimic_core.features.loading import LoadedBatch
from mimic_core.mimic.weightings import needs_comparison, needs_reference_losses
from mimic_core.models import classifiers, clip
from mimic_core.models.devices import pick_device
from mimic_core.models.layers import default_mimic_layers
from mimic_core.scoring.training.check import objective_losses
from mimic_core.scoring.training.comparison import mean_gradient
from mimic_core.scoring.training.distributed import Group
from mimic_core.scoring.training.objectives import LabelObjective, Objective, PairObjective
from mimic_core.scoring.training.optimisation import Updater
from mimic_core.scoring.training.step import Aids, Learner, visit_batch

STEPS = (
    "plain", "mimic", "mimic_all", "uniform", "grand", "agra", "grad_match", "rho", "influence",
)  # fmt: skip
TEMPERATURE = 0.05
PLAIN_LOSS = Callable[[nn.Module, LoadedBatch], Tensor]


@dataclass
class Setting:
    """A model with batches of random tensors; the reference is another one of its architecture."""

    module: nn.Module
    objective: Objective
    layers: tuple[str, ...]
    target: dict[str, Tensor]
    batches: list[LoadedBatch]
    plain_loss: PLAIN_LOSS
    device: torch.device

    @cached_property
    def updater(self) -> Updater:
        """One AdamW for all kinds of steps: its moments are twice the size of the model."""
        config = TrainConfig.parse({"model": "-"})
        parameters = dict(self.module.named_parameters())
        return Updater(parameters, config, total=1, device=self.device, precision="fp32")


def classifier(device: torch.device, batch: int, arch: str) -> Setting:
    """A ViT of timm's with its head as the mimic layer."""
    import timm

    torch.manual_seed(0)
    module: nn.Module = timm.create_model(arch, num_classes=1000).eval().to(device)
    head = classifiers.head(module)
    nn.init.normal_(head.weight, std=head.in_features**-0.5)
    size = module.pretrained_cfg["input_size"]  # type: ignore[index]
    batches = [
        _batch(torch.randn(batch, *size), torch.empty(batch, 0, dtype=torch.long), device)
        for _ in range(2)
    ]
    for one in batches:
        one.labels = [str(int(number)) for number in torch.randint(1000, (batch,))]
    objective = LabelObjective(tuple(str(number) for number in range(1000)), device)
    layers = (f"{classifiers.head_name(module)}.weight",)

    def plain_loss(module: nn.Module, batch: LoadedBatch) -> Tensor:
        return nn.functional.cross_entropy(module(batch.images), objective.targets(batch))

    return Setting(module, objective, layers, _target(module, layers), batches, plain_loss, device)


def pairs(device: torch.device, batch: int, arch: str) -> Setting:
    """A ViT of open_clip's with the last image MLP projection as the mimic layer."""
    import open_clip

    torch.manual_seed(0)
    module: nn.Module = open_clip.create_model(arch, load_weights=False).eval().to(device)
    size: tuple[int, int] = module.visual.image_size  # type: ignore[union-attr, assignment]
    tokens = open_clip.get_tokenizer(arch)([f"picture {i}" for i in range(batch)])
    batches = [_batch(torch.randn(batch, 3, *size), tokens, device) for _ in range(2)]
    layers = default_mimic_layers(module)
    own_loss = open_clip.ClipLoss()

    def plain_loss(module: nn.Module, batch: LoadedBatch) -> Tensor:
        image = clip.encode_image(module, batch.images, normalize=True)
        text = clip.encode_text(module, batch.tokens, normalize=True)
        loss: Tensor = own_loss(image, text, clip.logit_scale(module))
        return loss

    return Setting(
        module, PairObjective(device), layers, _target(module, layers), batches, plain_loss, device
    )


def linear(device: torch.device, batch: int, arch: str) -> Setting:
    """``classifier``, of which the head alone is trained."""
    setting = classifier(device, batch, arch)
    setting.module.requires_grad_(False)
    classifiers.head(setting.module).requires_grad_(True)
    return setting


MODELS: dict[str, Callable[[torch.device, int, str], Setting]] = {
    "classifier": classifier,
    "pairs": pairs,
    "linear": linear,
}
DEFAULTS = {
    "classifier": ("vit_base_patch16_224", 32),
    "pairs": ("ViT-B-32", 64),
    "linear": ("vit_base_patch16_224", 32),
}


def _batch(images: Tensor, tokens: Tensor, device: torch.device) -> LoadedBatch:
    rows = np.arange(len(images))
    return LoadedBatch(rows, images, torch.arange(len(rows)), tokens).to(device)


def _target(module: nn.Module, layers: tuple[str, ...]) -> dict[str, Tensor]:
    """A reference is anywhere else: the cost does not depend on where."""
    parameters = {name: module.get_parameter(name).detach() for name in layers}
    return {name: p + 0.01 * torch.randn_like(p) for name, p in parameters.items()}


def step(name: str, setting: Setting) -> None:
    """One whole step of the kind ``name``."""
    if name == "plain":
        _plain_step(setting)
        return
    if name == "vmap":
        _vmap_step(setting)
        return
    chosen = {"weighting": name}
    if name == "mimic_all":
        chosen = {"weighting": "mimic", "reweight": "all"}
    config = TrainConfig.parse({"model": "-", "temperature": TEMPERATURE, **chosen})
    module, batch = setting.module, setting.batches[0]
    objective, layers = setting.objective, setting.layers
    comparison = losses = None
    if needs_comparison(config.weighting):
        comparison = mean_gradient(module, objective, [setting.batches[1]], layers, Group())
    if needs_reference_losses(config.weighting):
        with torch.no_grad():
            losses = objective_losses(module, objective, batch)
    learner = Learner(module, objective, setting.target, config)
    visit = visit_batch(learner, batch, Aids(comparison, losses))
    _ = [part.detach().cpu() for part in (visit.losses, visit.mimic_scores, visit.mimic_weights)]
    setting.updater.update()


def _plain_step(setting: Setting) -> None:
    optimiser = setting.updater._optimiser  # noqa: SLF001 - torch's own
    loss = setting.plain_loss(setting.module, setting.batches[0])
    loss.backward()  # type: ignore[no-untyped-call]
    loss.item()  # any training loop logs it
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _vmap_step(setting: Setting) -> None:
    """Grad-Mimic with every sample's gradient of every trainable weight in memory."""
    module, batch = setting.module, setting.batches[0]
    assert isinstance(setting.objective, LabelObjective)
    named = dict(module.named_parameters())
    trained = {name: one.detach() for name, one in named.items() if one.requires_grad}
    fixed = {name: one.detach() for name, one in named.items() if not one.requires_grad}

    def loss(weights: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        logits = functional_call(module, {**fixed, **weights}, (image[None],))
        return nn.functional.cross_entropy(logits, target[None])

    of_each = vmap(grad_and_value(loss), in_dims=(None, 0, 0))
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels know no vmap of their backward
        gradients, losses = of_each(trained, batch.images, setting.objective.targets(batch))
    way = {name: setting.target[name] - trained[name] for name in setting.layers}
    length = torch.sqrt(sum((one.square().sum() for one in way.values()), torch.zeros(())))
    scores = -sum(gradients[name].flatten(1) @ one.flatten() for name, one in way.items()) / length
    weights = torch.softmax(scores / TEMPERATURE, 0)
    for name, one in gradients.items():
        mimic = name in setting.layers
        named[name].grad = torch.tensordot(weights, one, 1) if mimic else one.mean(0)
    _ = [part.cpu() for part in (losses, scores, weights)]
    setting.updater.update()


def measure(model: str, arguments: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Ratios of one model: ``<model>_<step>_over_plain`` and ``<model>_memory_over_plain``."""
    arch, batch = _size(model, arguments)
    setting = MODELS[model](device, batch, arch)
    names = [name for name in (*STEPS, "vmap") if name in ("plain", *arguments.steps)]
    if model == "pairs":
        names = [name for name in names if name != "vmap"]
    seconds = interleaved(
        {n: partial(step, n, setting) for n in names},
        arguments.rounds,
        device,
        clock=time.process_time if arguments.cpu_time else time.perf_counter,
    )
    del setting
    print(
        f"\n{model}: {arch}, batch {batch}, {machine(device)}, median of {arguments.rounds} rounds"
        f"{', processor time' if arguments.cpu_time else ''}"
    )
    print("\n| step | seconds | over plain |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.3f} | {value / seconds['plain']:.3f} |")
    result = {
        f"{model}_{name}_over_plain": value / seconds["plain"]
        for name, value in seconds.items()
        if name != "plain"
    }
    result[f"{model}_plain_seconds"] = seconds["plain"]
    if arguments.memory:
        peaks = {name: _peak(model, name, arguments) for name in ("plain", "mimic")}
        result[f"{model}_memory_over_plain"] = peaks["mimic"] / peaks["plain"]
        print(
            f"\npeak memory of a mimic step over a plain one: "
            f"{peaks['mimic'] / peaks['plain']:.3f} ({peaks['mimic'] / 2**30:.2f} GiB)"
        )
    return result


def _size(model: str, arguments: argparse.Namespace) -> tuple[str, int]:
    arch, batch = DEFAULTS[model]
    return arguments.arch or arch, arguments.batch or batch


def _peak(model: str, name: str, arguments: argparse.Namespace) -> float:
    options = ["--memory-of", name, "--models", model]
    for option in ("arch", "batch", "device"):
        value = getattr(arguments, option)
        options += [f"--{option}", str(value)] if value else []
    return peak_in_own_process(__file__, options)


def main() -> None:
    """Measure, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", choices=list(MODELS), default=["classifier", "pairs"]
    )
    parser.add_argument("--steps", nargs="+", choices=[*STEPS, "vmap"], default=list(STEPS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arch", default=None, help="another architecture for the one model")
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--device", default=None)
    parser.add_argument("--cpu-time", action="store_true", help="instead of the wall clock's")
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--memory-of", choices=STEPS, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    if arguments.memory_of:
        [model] = arguments.models
        arch, batch = _size(model, arguments)
        setting = MODELS[model](device, batch, arch)
        forget_peak(device)
        for _ in range(2):
            step(arguments.memory_of, setting)
        print(own_peak(device))
        return
    result: dict[str, object] = {"device": machine(device)}
    for model in arguments.models:
        result |= measure(model, arguments, device)
    for ratio, worst in (
        ("mimic_over_plain", "grad_mimic_over_plain"),
        ("memory_over_plain", "memory_over_plain"),
    ):
        keys = [f"{model}_{ratio}" for model in arguments.models]
        found = [float(str(result[key])) for key in keys if key in result]
        if found:
            result[worst] = max(found)
            print(f"{worst}: {result[worst]:.3f}, the larger of the models'")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
