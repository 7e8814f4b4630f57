"""Labelled images of the reproduction: real data, three disjoint parts, a reference trained on one.

- digits: scikit-learn's 1,797 handwritten digits, 8 x 8 pixels; 700 for the reference, 700 scored,
  397 for testing. Reference: a network with one hidden layer of 64; its activations are the
  frozen features, its last layer is the reference head.
- cifar10n: 10,000 CIFAR-10 images with the labels that people gave them (Wei et al.,
  arXiv 2110.12088); 5,000 for the reference, 3,000 scored, 2,000 for testing. Reference: timm's
  test_byobnet (0.2 million parameters) from random weights; its pre-logits are the features.

References see clean labels of the first part alone. Letters: N images, F features, C classes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from PIL import Image
from reproduce_numbers import Say, parts
from torch import Tensor, nn

CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar10n_10k.parquet"
SIZES = {"digits": (700, 700), "cifar10n": (5000, 3000)}
HUMAN = ("noisy_aggre", "noisy_label", "noisy_random2", "noisy_random3", "noisy_worse")


@dataclass(frozen=True, eq=False)
class Images:
    """Pixels (N, 3, H, W) standardised, or (N, H * W); labels (N,) int64; C classes.

    ``human`` are the labels (N,) that people gave, by name.
    """

    name: str
    pixels: Tensor
    labels: np.ndarray
    human: dict[str, np.ndarray]
    classes: int = 10

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions for the reference, to be scored, for testing; disjoint."""
        reference, scored, test = parts(len(self.labels), SIZES[self.name], seed=0)
        return reference, scored, test


@dataclass(frozen=True, eq=False)
class Referred:
    """Images as the reference sees them: features (N, F), head weight (C, F) and bias (C,)."""

    images: Images
    features: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, rows: np.ndarray) -> Tensor:
        """The reference's logits (len(rows), C)."""
        return self.features[torch.from_numpy(rows)] @ self.weight.T + self.bias

    def accuracy(self, rows: np.ndarray) -> float:
        """The reference's accuracy against clean labels."""
        right = self.logits(rows).argmax(1).numpy() == self.images.labels[rows]
        return float(right.mean())


def digits() -> Images:
    """Scikit-learn's digits, pixels scaled to 0 to 1."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = torch.from_numpy(found.data.astype(np.float32) / 16)
    return Images("digits", pixels, found.target.astype(np.int64), {})


def cifar(path: Path = CIFAR) -> Images:
    """The CIFAR-10N images with clean and human labels."""
    frame = pl.read_parquet(path)
    arrays = [np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))
              for cell in frame["image"]]  # fmt: skip
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
    mean, spread = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    names = sorted(frame["label"].unique())

    def numbers(column: str) -> np.ndarray:
        return np.array([names.index(value) for value in frame[column]], np.int64)

    human = {column: numbers(column) for column in HUMAN}
    return Images("cifar10n", (pixels - mean) / spread, numbers("label"), human)


def referred(images: Images, epochs: int, say: Say, seed: int = 0) -> Referred:
    """Train the reference of ``images`` on its own part and cache the features of all images."""
    module = module_of(images, epochs, say, seed)
    module.eval()
    with torch.no_grad():
        features = torch.cat([_features(module, part) for part in torch.split(images.pixels, 500)])
    head = module.get_classifier()
    return Referred(images, features, head.weight.detach(), head.bias.detach())


def module_of(images: Images, epochs: int, say: Say, seed: int) -> Any:
    """A network for ``images``, from random weights, trained on the reference's part."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _module(images)
        if epochs:
            _fit(module, images, epochs, say)
    return module


class _OneHiddenLayer(nn.Module):
    """A network with one hidden layer, with the methods of timm's models."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(pixels))

    def forward_features(self, pixels: Tensor) -> Tensor:
        return F.relu(self.hidden(pixels))

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        if pre_logits:
            return features
        logits: Tensor = self.head(features)
        return logits

    def get_classifier(self) -> nn.Linear:
        return self.head


def _module(images: Images) -> Any:
    """With random weights; the methods used are those of timm's models."""
    if images.name == "digits":
        return _OneHiddenLayer(images.pixels.shape[1], 64, images.classes)
    import timm

    return timm.create_model("test_byobnet", num_classes=images.classes)


def _features(module: Any, pixels: Tensor) -> Tensor:
    """(B, F): what the last layer sees."""
    found: Tensor = module.forward_head(module.forward_features(pixels), pre_logits=True)
    return found


def _fit(module: nn.Module, images: Images, epochs: int, say: Say) -> None:
    """AdamW on one cycle up to 3e-3; images are mirrored and shifted by up to four pixels."""
    rows = torch.from_numpy(images.parts()[0])
    labels, size = torch.from_numpy(images.labels), 128
    steps = len(rows) // size
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=epochs * steps)
    module.train()
    for epoch in range(epochs):
        for chosen in torch.split(rows[torch.randperm(len(rows))][: steps * size], size):
            pixels = images.pixels[chosen]
            if pixels.ndim == 4:
                pixels = _moved(pixels)
            loss = F.cross_entropy(module(pixels), labels[chosen], label_smoothing=0.1)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
        if epoch % 10 == 9:
            say(f"{images.name}: reference, epoch {epoch + 1} of {epochs}")


def _moved(pixels: Tensor) -> Tensor:
    """A batch mirrored half of the time, and shifted; zeros come in at the edges."""
    if float(torch.rand(())) < 0.5:
        pixels = pixels.flip(3)
    down, right = torch.randint(0, 9, (2,)).tolist()
    height, width = pixels.shape[2:]
    return F.pad(pixels, (4, 4, 4, 4))[:, :, down : down + height, right : right + width]
