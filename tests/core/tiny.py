"""Tiny real models for the scoring tests: open_clip and timm towers with few weights.

Two seeds of one builder are a model and its reference. ``Case`` joins a pair with a batch and the
two ways to get its losses: ours, and the oracle's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from mimic_core.features.loading import LoadedBatch
from mimic_core.mimic.losses import clip_losses, cross_entropy_losses, siglip_losses
from mimic_core.scoring.training.objectives import PairObjective
from tests.core import oracle

VISION = {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
IMAGE_MLP = "visual.transformer.resblocks.1.mlp.c_proj.weight"
PAIRS = PairObjective(torch.device("cpu"))


@dataclass(frozen=True)
class Case:
    """A pair of models with batches to score.

    ``layers`` names the choices of mimic layers: ``one``, ``several``, ``all``. ``ours`` and
    ``truth`` give the losses (B,) of a module on inputs from ``draw(batch, seed)``.
    """

    build: Callable[[int], nn.Module]
    one: str
    several: tuple[str, ...]
    draw: Callable[[int, int], tuple[Tensor, Tensor]]
    ours: Callable[[nn.Module, Tensor, Tensor], Tensor]
    truth: Callable[[nn.Module, Tensor, Tensor], Tensor]

    def layers(self, choice: str) -> tuple[str, ...]:
        """The mimic layers of a choice."""
        if choice == "one":
            return (self.one,)
        if choice == "several":
            return self.several
        return tuple(name for name, _ in self.build(0).named_parameters())


def clip_vit(seed: int = 0, **options: Any) -> nn.Module:
    """A CLIP model with two blocks in each tower; ``init_logit_bias`` makes it a SigLIP model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = open_clip.CLIP(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT, **options)
    return module.eval()


def siglip_vit(seed: int = 0) -> nn.Module:
    """The same with a sigmoid head; scale and bias differ from seed to seed, as trained ones do."""
    own = seed % 10  # a scale of thousands would leave losses that no float32 can hold
    return clip_vit(seed, init_logit_scale=1.5 + 0.1 * own, init_logit_bias=-2.0 - 0.2 * own)


def siglip_timm(seed: int = 0) -> nn.Module:
    """``CustomTextCLIP`` with a timm image tower and a bias in its head, as published SigLIPs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = open_clip.CustomTextCLIP(
            embed_dim=16,
            vision_cfg={
                "timm_model_name": "test_vit",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": 160,
            },
            text_cfg={**TEXT, "no_causal_mask": True, "pool_type": "last"},
            init_logit_scale=1.0,
            init_logit_bias=-3.0 - seed / 2,
        )
    return module.eval()


def vit(seed: int = 0) -> nn.Module:
    """A timm ViT classifier with 7 classes."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = timm.create_model("vit_tiny_patch16_224", num_classes=7, **sizes)
        nn.init.normal_(module.head.weight, std=0.2)
    return module.eval()


def resnet(seed: int = 0) -> nn.Module:
    """A timm ResNet with 7 classes, and BatchNorm statistics that are not zeros and ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = ResNet(
            BasicBlock, [1, 1, 1, 1], channels=(8, 8, 16, 16), num_classes=7, stem_width=8
        )
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.running_mean, std=0.2)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
                nn.init.uniform_(layer.weight, 0.5, 1.5)
    return module.eval()


def convnext(seed: int = 0) -> nn.Module:
    """A timm ConvNeXt with 7 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = timm.create_model(
            "convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), num_classes=7
        )
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:  # timm's own draws make the logits all but constant
                fan_in = parameter[0].numel()
                nn.init.normal_(parameter, std=fan_in**-0.5)
            elif name.endswith("gamma"):
                nn.init.uniform_(parameter, 0.5, 1.5)
    return module.eval()


class Tied(nn.Module):
    """One weight at two places, as in models that share embeddings and head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def pairs(batch: int, seed: int, size: int = 16) -> tuple[Tensor, Tensor]:
    """Images (B, 3, size, size) and token ids (B, 8) int64 whose largest id ends each text."""
    generator = torch.Generator().manual_seed(1000 + seed)
    images = torch.randn(batch, 3, size, size, generator=generator)
    tokens = torch.randint(1, 62, (batch, 8), generator=generator)
    ends = torch.randint(2, 8, (batch,), generator=generator)
    tokens[torch.arange(batch), ends] = 63
    return images, tokens


def batch_of(
    count: int,
    seed: int = 0,
    *,
    rows: slice = slice(None),
    image_of: list[int] | None = None,
) -> LoadedBatch:
    """``rows`` of ``pairs(count, seed)`` as they are loaded.

    Args:
        image_of: Which image each row shows, where rows share images; each its own if not given.
    """
    images, tokens = pairs(count, seed)
    images, tokens = images[rows], tokens[rows]
    shown = list(range(len(images))) if image_of is None else image_of
    return LoadedBatch(
        rows=np.arange(len(tokens)),
        images=images[: max(shown) + 1],
        image_of=torch.tensor(shown),
        tokens=tokens,
    )


def labelled(batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (B, 3, 32, 32) and labels (B,) int64 of 7 classes."""
    generator = torch.Generator().manual_seed(2000 + seed)
    images = torch.randn(batch, 3, 32, 32, generator=generator)
    return images, torch.randint(7, (batch,), generator=generator)


def _contrastive(module: nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    return clip_losses(*module(images, tokens))


def _sigmoid(module: nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    return siglip_losses(*module(images, tokens))


def _classified(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy_losses(module(images), labels)


def _true_contrastive(module: nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    return oracle.contrastive_losses(*module(images, tokens))


def _true_sigmoid(module: nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    return oracle.sigmoid_losses(*module(images, tokens))


def _true_classified(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return oracle.label_losses(module(images), labels)


CASES: dict[str, Case] = {
    "clip": Case(
        clip_vit,
        IMAGE_MLP,
        (
            IMAGE_MLP,
            "visual.proj",
            "text_projection",
            "transformer.resblocks.0.mlp.c_fc.bias",
        ),
        pairs,
        _contrastive,
        _true_contrastive,
    ),
    "siglip": Case(
        siglip_vit,
        "text_projection",
        (
            "logit_scale",
            "logit_bias",
            "visual.transformer.resblocks.0.attn.in_proj_weight",
        ),
        pairs,
        _sigmoid,
        _true_sigmoid,
    ),
    "siglip-timm": Case(
        siglip_timm,
        "visual.head.proj.weight",
        (
            "visual.head.proj.weight",
            "text.text_projection",
            "visual.trunk.blocks.5.mlp.fc2.weight",
        ),
        lambda batch, seed: pairs(batch, seed, size=160),
        _sigmoid,
        _true_sigmoid,
    ),
    "vit": Case(
        vit,
        "head.weight",
        ("head.weight", "blocks.1.mlp.fc2.weight", "blocks.0.attn.qkv.bias"),
        labelled,
        _classified,
        _true_classified,
    ),
    "resnet": Case(
        resnet,
        "fc.weight",
        ("fc.weight", "layer3.0.bn1.weight", "conv1.weight"),
        labelled,
        _classified,
        _true_classified,
    ),
    "convnext": Case(
        convnext,
        "head.fc.weight",
        ("head.fc.bias", "stages.3.blocks.0.mlp.fc2.weight", "stem.0.weight"),
        labelled,
        _classified,
        _true_classified,
    ),
}
