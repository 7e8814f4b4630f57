"""Labelled images of the reproduction: real data, three disjoint parts, a reference trained on one.

- digits: scikit-learn's 1,797 handwritten digits, 8 x 8 pixels; 700 for the reference, 700 scored,
  397 for testing. Reference: a network with one hidden layer of 64; its activations are the
  frozen features, its last layer is the reference head.
- cifar10n: 10,000 CIFAR-10 images with the labels that people gave them (Wei et al.,
  arXiv 2110.12088); 5,000 for the reference, 3,000 scored, 2,000 for testing. Reference: timm's
  test_byobnet (0.2 million parameters) from random weights; its pre-logits are the features.
- drawings: the 1,900 whole pictures of the demo pool by the colour of their background, 18 of them;
  700 for the reference, 700 scored, 500 for testing. The features are those of the demo's CLIP,
  which has seen other pictures with captions; the reference is a logistic regression on the first
  part.

References see clean labels of the first part alone. Letters: N images, F features, C classes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up
import torch
import torch.nn.functional as F
from PIL import Image
from reproduce_numbers import Say, parts
from torch import Tensor, nn

from mimic_core.runs.run import open_run
from mimic_core.scoring.labels.logistic import fit_logistic

CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar10n_10k.parquet"
DEMO = Path(__file__).parents[1] / "data_samples" / "runs"
# What is planted into the demo's images: their classes cannot be seen, or they are there twice.
SPOILED = ("blank_image", "blurred_image", "tiny_image", "near_duplicate")
HUMAN = ("noisy_aggre", "noisy_label", "noisy_random2", "noisy_random3", "noisy_worse")


@dataclass(frozen=True, eq=False)
class Images:
    """Pixels (N, 3, H, W) standardised, or what stands for them (N, ...); labels (N,) int64.

    ``human`` are the labels (N,) that people gave, by name; ``sizes`` are those of the reference's
    and of the scored part; ``classes`` is C.
    """

    name: str
    pixels: Tensor
    labels: np.ndarray
    human: dict[str, np.ndarray]
    sizes: tuple[int, int]
    classes: int = 10

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions for the reference, to be scored, for testing; disjoint."""
        reference, scored, test = parts(len(self.labels), self.sizes, seed=0)
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
    return Images("digits", pixels, found.target.astype(np.int64), {}, (700, 700))


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
    return Images("cifar10n", (pixels - mean) / spread, numbers("label"), human, (5000, 3000))


def drawings() -> Referred:
    """The demo's pictures as its CLIP sees them, by background, and a head from the first part."""
    features = open_run(next(DEMO.glob("*/run.json")).parent).features
    samples = features.samples.select("uid", "noise_kind", "background").with_row_index("row")
    samples = samples.filter(~pl.col("noise_kind").is_in(SPOILED)).sort("uid")
    names = samples["background"].unique().sort().to_list()
    labels = np.array([names.index(name) for name in samples["background"]], np.int64)
    x = torch.from_numpy(features.array("image_features").take(samples["row"].to_numpy())).float()
    images = Images("drawings", x, labels, {}, (700, 700), len(names))
    return fitted(images, x, images.parts()[0])


def fitted(
    images: Images, features: Tensor, rows: np.ndarray, weight_decay: float = 1e-2
) -> Referred:
    """A logistic regression on clean labels of ``rows`` as the reference's head.

    Args:
        features: (N, F)
    """
    made = fit_logistic(
        lambda chosen: features[torch.from_numpy(rows[chosen])],
        images.labels[rows],
        classes=images.classes,
        width=features.shape[1],
        weight_decay=weight_decay,
    )
    return Referred(images, features, made.weight, made.bias)


def referred(
    images: Images, epochs: int, say: Say, seed: int = 0, rows: np.ndarray | None = None
) -> Referred:
    """Train the reference of ``images`` and cache the features of all images; see ``module_of``."""
    module = module_of(images, epochs, say, seed, rows)
    head = module.get_classifier()
    features = features_of(module, images.pixels)
    return Referred(images, features, head.weight.detach(), head.bias.detach())


def module_of(
    images: Images, epochs: int, say: Say, seed: int, rows: np.ndarray | None = None
) -> Any:
    """A network for ``images``, from random weights, trained on clean labels of ``rows``; None
    takes the reference's part.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _module(images)
        if epochs:
            fit(module, images, images.parts()[0] if rows is None else rows, epochs, say)
    return module


def features_of(module: Any, pixels: Tensor) -> Tensor:
    """(N, F): what the last layer sees of the images ``pixels``."""
    module.eval()
    with torch.no_grad():
        return torch.cat([_features(module, part) for part in torch.split(pixels, 500)])


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


def fit(
    module: nn.Module, images: Images, rows: np.ndarray, epochs: int, say: Say, size: int = 128
) -> None:
    """AdamW on one cycle up to 3e-3; images are mirrored and shifted by up to four pixels."""
    labels, part = torch.from_numpy(images.labels), torch.from_numpy(rows)
    steps = len(rows) // size
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=epochs * steps)
    module.train()
    for epoch in range(epochs):
        for chosen in torch.split(part[torch.randperm(len(rows))][: steps * size], size):
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
