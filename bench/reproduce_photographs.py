"""Photographs and their captions, scored by features of one's own and no network.

1,000 Flickr8k images with five captions each (``../shared/data/flickr8k_1k``). Images are told by
edges, colours and a thumbnail; captions by the weighted words of TF-IDF in 64 dimensions. The
reference is a ridge regression from one to the other on 500 images and all their captions. The
others are scored with one caption each, a share of which is exchanged among them. Letters: N
images, F features, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up
import torch
from PIL import Image
from reproduce_detection import BATCHES
from reproduce_labels import Collected
from reproduce_numbers import Say, Table, parts

from mimic_core.base.config import RunConfig
from mimic_core.filters.ensembles.config import EnsembleConfig, GaussianMixture, KMeans
from mimic_core.filters.ensembles.ensemble import ensemble
from mimic_core.runs.history import run_history
from mimic_core.runs.table import run_table
from mimic_core.scoring.pipeline import score_pool
from mimic_core.stats.detection import auroc, detection

FLICKR = Path(__file__).parents[2] / "shared" / "data" / "flickr8k_1k"
VOTES = {"k-means": KMeans(), "two components": GaussianMixture()}


@dataclass(frozen=True)
class PhotographPlan:
    """How much is computed; ``penalty`` is the ridge regression's."""

    seeds: tuple[int, ...] = (0, 1, 2)
    rates: tuple[float, ...] = (0.2, 0.4, 0.6)
    reference: int = 500
    width: int = 64
    penalty: float = 1000.0
    scale: float = 10.0


@dataclass(frozen=True, eq=False)
class Described:
    """Images (N, F) standardised, one caption of each (N, D) of unit length, and the projection
    (D, F) from images to captions that is the reference.
    """

    images: np.ndarray
    captions: np.ndarray
    projection: np.ndarray


def missing() -> str | None:
    """Why the photographs are left out; None where they are there."""
    there = (FLICKR / "captions.csv").is_file()
    return None if there else f"photographs: {FLICKR.name} is not in ../shared/data"


def reproduce_photographs(plan: PhotographPlan, say: Say) -> Table:
    """AUROC of each score, F1 of ensembles, by rate, over seeds."""
    table = pl.read_csv(FLICKR / "captions.csv").group_by("filename", maintain_order=True).all()
    images = np.stack([described_image(FLICKR / name) for name in table["filename"]])
    described = referred_captions(images, table["caption"].to_list(), plan)
    say("photographs: described")
    found = Collected()
    for seed in plan.seeds:
        for rate in plan.rates:
            with TemporaryDirectory() as folder:
                for name, value in swapped_figures(described, rate, seed, plan, Path(folder)):
                    found.add(value, f"{rate:g}", name)
        say(f"photographs: seed {seed} done")
    return found.table("noise", "figure", value="value")


def described_image(path: Path) -> np.ndarray:
    """Edges by direction in 4 x 4 cells, a 4 x 4 thumbnail, and a histogram of colours (F,)."""
    picture = Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, np.float64) / 255
    grey = pixels.mean(2)
    across, down = np.diff(grey, axis=1)[:31], np.diff(grey, axis=0)[:, :31]
    strength = np.pad(np.hypot(across, down), ((0, 1), (0, 1)))
    direction = np.pad(np.arctan2(down, across) % np.pi / np.pi * 9, ((0, 1), (0, 1)))
    bins = np.minimum(direction.astype(int), 8)
    edges = np.stack([np.where(bins == k, strength, 0) for k in range(9)])
    edges = edges.reshape(9, 4, 8, 4, 8).sum((2, 4)).ravel()
    thumbnail = pixels.reshape(4, 8, 4, 8, 3).mean((1, 3)).ravel()
    tones = np.asarray(picture.convert("HSV"), np.float64).reshape(-1, 3)
    colours, _ = np.histogramdd(tones, bins=(8, 3, 3), range=((0, 256),) * 3)
    edges /= max(float(np.linalg.norm(edges)), 1e-6)
    return np.concatenate([edges, thumbnail, np.sqrt(colours.ravel() / tones.shape[0])])


def referred_captions(
    images: np.ndarray, captions: list[list[str]], plan: PhotographPlan
) -> Described:
    """Words and regression from the reference's part; images and first captions of the others.

    Args:
        images: (N, F)
        captions: Of each image.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    reference, scored = parts(len(images), (plan.reference,), seed=0)
    words = TfidfVectorizer(min_df=3, stop_words="english")
    known = words.fit_transform([one for row in reference for one in captions[row]])
    space = TruncatedSVD(plan.width, random_state=0).fit(known)

    def embedded(texts: list[str]) -> np.ndarray:
        return unit(space.transform(words.transform(texts)))

    targets = np.stack([embedded(captions[row]).mean(0) for row in reference])
    centre = targets.mean(0)
    mean, spread = images[reference].mean(0), images[reference].std(0) + 1e-6
    standard = (images - mean) / spread
    fitted = Ridge(plan.penalty, fit_intercept=False).fit(standard[reference], targets - centre)
    first = embedded([captions[row][0] for row in scored])
    return Described(standard[scored], unit(first - centre), fitted.coef_)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows (N, D) at length one; a row of zeros stays."""
    found: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return found


def swapped_figures(
    described: Described, rate: float, seed: int, plan: PhotographPlan, folder: Path
) -> Iterator[tuple[str, float]]:
    """One seed's figures by name, with a share ``rate`` of the captions exchanged in a ring."""
    count = len(described.images)
    ring = np.random.default_rng(seed).permutation(count)[: round(rate * count)]
    whose = np.arange(count)
    whose[ring] = np.roll(ring, 1)
    wrong = whose != np.arange(count)
    pool, features, head = _files(described, whose, plan.scale, folder)
    for size in BATCHES:
        config = RunConfig.parse(
            {
                "source": {"path": str(pool)},
                "reference": f"features:{features}",
                "head": {"file": str(head)},
                "probe": {"batch_size": size, "temperature": 0.05, "seed": seed},
            }
        )
        run = score_pool(config, runs_root=folder / "runs", device="cpu", workers=0)
        table, history = run_table(run).sort("uid"), run_history(run)
        if size == BATCHES[0]:
            yield "AUROC, CLIP score", _auroc(-table["clip_score"].to_numpy(), wrong)
        yield f"AUROC, mimic score, batch {size}", _auroc(-table["mimic_score"].to_numpy(), wrong)
        yield f"AUROC, loss, batch {size}", _auroc(table["loss"].to_numpy(), wrong)
        truth = wrong[np.array([int(uid, 16) for uid in history.uids])]
        for name, vote in VOTES.items():
            keep = ensemble(history, EnsembleConfig(binarise=vote)).keep
            f1 = detection(keep, pl.Series(truth)).f1
            yield f"F1, mimic score, {name}, batch {size}", 0.0 if f1 is None else f1


def _files(
    described: Described, whose: np.ndarray, scale: float, folder: Path
) -> tuple[Path, Path, Path]:
    """A listing whose images are never read, the features, and the reference's projection."""
    from safetensors.torch import save_file

    uids = [f"{row:032x}" for row in range(len(whose))]
    (folder / "image.png").write_bytes(b"")
    pl.DataFrame(
        {
            "uid": uids,
            "image": ["image.png"] * len(uids),
            "caption": [f"caption {row}" for row in whose],
        }
    ).write_parquet(folder / "pool.parquet")
    pl.DataFrame(
        {
            "uid": uids,
            "image_features": described.images.tolist(),
            "text_features": described.captions[whose].tolist(),
        }
    ).write_parquet(folder / "features.parquet")
    tensors = {
        "weight": torch.from_numpy(described.projection).float().contiguous(),
        "logit_scale": torch.tensor(scale),
    }
    save_file(tensors, folder / "projection.safetensors")
    return folder / "pool.parquet", folder / "features.parquet", folder / "projection.safetensors"


def _auroc(values: np.ndarray, wrong: np.ndarray) -> float:
    found = auroc(values.astype(np.float64), wrong)
    assert found is not None  # there are both
    return found
