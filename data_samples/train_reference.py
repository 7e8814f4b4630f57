"""Train the tiny CLIP model that serves the demo as its reference.

Run as ``python -m data_samples.train_reference`` or through make_demo.py. The loss is CLIP's
contrastive loss plus, while the two towers are still strangers to each other, the cross-entropy
of both embeddings against one shared prototype per thing: it tells each tower at once what it
should look for, which saves the greater part of the training time on a CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from open_clip.loss import ClipLoss
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from data_samples.training_pairs import CAPTIONS_PER_IMAGE, TrainingPairs, draw_pairs

REFERENCE_DIR = Path(__file__).parent / "reference"
REFERENCE_SEED = 77
CONTEXT_LENGTH = 77
# No clean caption has more tokens, so training on the full context would be wasted time.
TRAINING_CONTEXT = 32
IMAGE_SIZE = 64
EMBED_DIM = 128
VISION_CFG: dict[str, int | str] = {
    "image_size": IMAGE_SIZE,
    "patch_size": 16,
    "width": 192,
    "head_width": 32,
    "layers": 4,
    "pool_type": "avg",
}
TEXT_CFG: dict[str, int] = {
    "context_length": CONTEXT_LENGTH,
    "vocab_size": 49408,
    # The token embedding is half of the file, so the text tower is kept narrow.
    "width": 48,
    "heads": 3,
    "layers": 2,
}
# The model's own statistics: whoever falls back to OpenAI's gets visibly other scores.
MEAN = (0.55, 0.52, 0.48)
STD = (0.28, 0.28, 0.28)
CONFIG = {
    "model_cfg": {"embed_dim": EMBED_DIM, "vision_cfg": VISION_CFG, "text_cfg": TEXT_CFG},
    "preprocess_cfg": {
        "size": [IMAGE_SIZE, IMAGE_SIZE],
        "mode": "RGB",
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "resize_mode": "squash",
        "fill_color": 0,
    },
}


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Settings of the training loop.

    Attributes:
        rounds: Pictures drawn per thing.
        epochs: Visits of each picture.
        batch_size: Pairs per step, all of different main things.
        learning_rate: Peak of the cosine schedule.
        weight_decay: AdamW's, on matrices other than token embeddings.
        warm_up: Steps of linear warm-up.
        prototype_weight: Weight of the prototype loss at the start; it falls to 0 linearly.
        seed: Seed of pairs, weights and batches.
    """

    rounds: int = 100
    epochs: int = 3
    batch_size: int = 93
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warm_up: int = 100
    prototype_weight: float = 1.0
    seed: int = REFERENCE_SEED


def train_reference(out: Path, plan: TrainingPlan) -> None:
    """Draw the pairs, train the model and write it in open_clip's local-dir layout."""
    start = time.perf_counter()
    pairs = draw_pairs(plan.rounds, side=IMAGE_SIZE, seed=plan.seed)
    print(f"{len(pairs.images):,} pairs drawn in {time.perf_counter() - start:.0f} s", flush=True)
    model = _fit(pairs, plan)
    _save(model, out)
    print(f"reference written to {out}, {time.perf_counter() - start:.0f} s in all")


def _new_model(context_length: int) -> open_clip.CLIP:
    text_cfg = {**TEXT_CFG, "context_length": context_length}
    return open_clip.CLIP(embed_dim=EMBED_DIM, vision_cfg=VISION_CFG, text_cfg=text_cfg)


def _fit(pairs: TrainingPairs, plan: TrainingPlan) -> open_clip.CLIP:
    torch.manual_seed(plan.seed)
    model = _new_model(TRAINING_CONTEXT)
    n_things = int(pairs.things.max()) + 1
    prototypes = nn.Linear(EMBED_DIM, n_things)
    optimizer = _optimizer(model, prototypes, plan)
    images = torch.from_numpy(pairs.images).permute(0, 3, 1, 2).contiguous()
    tokens = _tokens(pairs)
    things = torch.from_numpy(pairs.things)
    clip_loss = ClipLoss()
    generator = torch.Generator().manual_seed(plan.seed)
    batches = list(_batches(n_things, plan, generator))
    start = time.perf_counter()
    for step, batch in enumerate(batches):
        _set_learning_rate(optimizer, step, len(batches), plan)
        pixels = _augment(images[batch], generator)
        caption = int(torch.randint(CAPTIONS_PER_IMAGE, (), generator=generator))
        image = model.encode_image(pixels, normalize=True)  # (B, D)
        text = model.encode_text(tokens[batch, caption], normalize=True)  # (B, D)
        loss = clip_loss(image, text, model.logit_scale.exp())
        share = plan.prototype_weight * (1 - step / len(batches))
        loss = loss + share * _prototype_loss(prototypes, (image, text), things[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            seconds = time.perf_counter() - start
            progress = f"step {step + 1}/{len(batches)}"
            print(f"{progress} loss {loss.item():.3f} {seconds:.0f} s", flush=True)
    return model


def _prototype_loss(prototypes: nn.Linear, towers: tuple[Tensor, Tensor], things: Tensor) -> Tensor:
    # 16 sharpens cosines enough for a softmax over a few hundred things.
    losses = [F.cross_entropy(16 * prototypes(embedding), things) for embedding in towers]
    return (losses[0] + losses[1]) / 2


def _optimizer(model: nn.Module, prototypes: nn.Module, plan: TrainingPlan) -> torch.optim.AdamW:
    named = list(model.named_parameters())
    decayed = [weight for name, weight in named if weight.ndim > 1 and "embedding" not in name]
    others = [weight for name, weight in named if weight.ndim <= 1 or "embedding" in name]
    groups = [
        {"params": decayed, "weight_decay": plan.weight_decay},
        {"params": [*others, *prototypes.parameters()], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98))


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, steps: int, plan: TrainingPlan
) -> None:
    warm_up = min(1.0, (step + 1) / plan.warm_up)
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
    for group in optimizer.param_groups:
        group["lr"] = plan.learning_rate * warm_up * cosine


def _tokens(pairs: TrainingPairs) -> Tensor:
    """Tokenize all captions: (N, CAPTIONS_PER_IMAGE, TRAINING_CONTEXT) int64."""
    tokenizer = open_clip.SimpleTokenizer(context_length=TRAINING_CONTEXT)
    flat: Tensor = tokenizer([caption for captions in pairs.captions for caption in captions])
    return flat.view(len(pairs.captions), CAPTIONS_PER_IMAGE, TRAINING_CONTEXT)


def _batches(n_things: int, plan: TrainingPlan, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield row numbers (B,) of pictures whose main things all differ.

    Two pictures of one thing in a batch would each be told that the other's caption is wrong.
    """
    for _ in range(plan.epochs):
        for number in torch.randperm(plan.rounds, generator=generator):
            rows = number * n_things + torch.randperm(n_things, generator=generator)
            yield from rows.split(plan.batch_size)[: n_things // plan.batch_size]


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Normalise (B, 3, H, W) uint8 pixels; shift the batch and vary each picture's contrast."""
    right, down = torch.randint(-4, 5, (2,), generator=generator).tolist()
    shifted = torch.roll(images, (down, right), (2, 3)).float() / 255
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    std = torch.tensor(STD).view(1, 3, 1, 1)
    shape = (len(images), 1, 1, 1)
    contrast = 0.9 + 0.2 * torch.rand(shape, generator=generator)
    brightness = 0.2 * torch.rand(shape, generator=generator) - 0.1
    return (shifted - mean) / std * contrast + brightness


def _save(model: open_clip.CLIP, out: Path) -> None:
    """Write config and half-precision weights, with the context grown to its full length."""
    whole = _new_model(CONTEXT_LENGTH)
    weights = model.state_dict()
    # Positions beyond the training context stay at zero: nothing was learnt about them.
    positions = torch.zeros_like(whole.positional_embedding)
    positions[:TRAINING_CONTEXT] = weights["positional_embedding"]
    weights["positional_embedding"] = positions
    whole.load_state_dict(weights)
    out.mkdir(parents=True, exist_ok=True)
    halves = {name: value.half().contiguous() for name, value in whole.state_dict().items()}
    weights_path = out / "open_clip_model.safetensors"
    save_file(halves, weights_path)
    # safetensors keeps new files to their owner.
    weights_path.chmod(0o644)
    (out / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


def main() -> None:
    """Command line: train and write the reference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REFERENCE_DIR)
    parser.add_argument("--seed", type=int, default=REFERENCE_SEED)
    options = parser.parse_args()
    train_reference(options.out, TrainingPlan(seed=options.seed))


if __name__ == "__main__":
    main()
