"""The reference head of a labelled run: what it is made from, and how good it is on the pool.

A head comes from a file, from trusted samples, from words (zero-shot, CLIP models) or from the
reference checkpoint's own classifier (method.md section 5). Letters: N samples, C classes, F width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from mimic_core.base.config import HeadConfig
from mimic_core.base.errors import ConfigError, ModelError
from mimic_core.features.stored import Rows, features_array
from mimic_core.models import clip
from mimic_core.models.load import LoadedModel
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.record import HeadOrigin, HeadRecord, WeightDecayOrigin
from mimic_core.scoring.labels.class_head import (
    ClassHead,
    own_head,
    read_class_head,
    require_head_file,
    trained_classifier,
)
from mimic_core.scoring.labels.logistic import fit_logistic
from mimic_core.scoring.labels.regularisation import can_choose, chosen_weight_decay
from mimic_core.sources.marks import Trusted, trusted_samples

DEFAULT_PROMPTS = ("a photo of a {}",)
_BATCH = 256  # texts in one forward pass


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference head, and which samples it may score.

    ``scored`` (M,) int64 are rows of the feature set in their order; ``predicted`` (M,) the number
    of the class that the head gives each of them.
    """

    head: ClassHead
    record: HeadRecord
    scored: np.ndarray
    predicted: np.ndarray
    trusted: Trusted | None = None


def make_reference(
    features: FeatureSet,
    config: HeadConfig | None,
    model: LoadedModel,
    device: torch.device,
    *,
    held_out: np.ndarray | None = None,
) -> Reference:
    """The reference head that ``config`` asks for; without a wish, what the model has to offer.

    Args:
        held_out: Which samples of the feature set (N,) bool never train a head.

    Raises:
        ConfigError: The trusted samples cannot be found, or are the whole pool.
        ModelError: There is no head, or it does not know the pool's labels.
    """
    wanted = config or HeadConfig()
    samples = features.samples
    labels = sorted(set(samples["label"].to_list()))
    rows = Rows(features, features_array(features), device)
    trusted = trusted_samples(samples, wanted, held_out) if wanted.uses_trusted else None
    origin: HeadOrigin
    if wanted.file is not None:
        origin = "file"
        head = read_class_head(Path(wanted.file), width=rows.width, labels=labels)
    elif trusted is not None:
        origin = "trusted"
        head = trained_head(rows, trusted, samples["uid"], weight_decay=wanted.weight_decay)
    elif model.tokenizer is not None:
        origin = "zero_shot"
        head = _zero_shot_head(model, labels, wanted.prompts, device)
    else:
        origin = "checkpoint"
        head = _own_head(model, rows.width, labels)
    head = head.to(device)
    _require_classes(head)
    scored = _scored_rows(len(samples), trusted, wanted)
    return _measured(head, origin, wanted, rows, samples, scored, trusted)


def say(record: HeadRecord, note: Callable[[str], None]) -> None:
    """Tell what the head is and, where it agrees with far too few labels, what may be wrong."""
    note(f"reference head: {record.as_sentence()}")
    if record.warning is not None:
        note(f"warning: {record.warning}")


def require_origin(features: FeatureSet, config: HeadConfig | None, model: LoadedModel) -> None:
    """Check, before any image is read, that ``make_reference`` will find what it begins with.

    Raises:
        ConfigError: The trusted samples cannot be found.
        ModelError: The head's file is not there, or the model has no head to offer.
    """
    wanted = config or HeadConfig()
    if wanted.file is not None:
        require_head_file(Path(wanted.file))
    elif wanted.uses_trusted:
        trusted_samples(features.index_samples(), wanted)
    elif model.tokenizer is None:
        with _other_origins():
            trained_classifier(model)


def trained_head(
    rows: Rows, trusted: Trusted, uids: pl.Series, *, weight_decay: float | None
) -> ClassHead:
    """A head trained on the trusted samples; no other sample's features are read.

    Args:
        uids: Of all samples (N,).
        weight_decay: None chooses it (``mimic_core.scoring.labels.regularisation``).
    """
    classes = tuple(sorted(set(trusted.labels)))
    if len(classes) < 2:
        raise ConfigError(
            "the trusted samples have one class only",
            got=classes[0],
            allowed="trusted samples of at least two classes",
            next_step="trust samples of every class of the pool",
        )
    number = {name: n for n, name in enumerate(classes)}
    targets = np.array([number[label] for label in trusted.labels])

    def take(part: np.ndarray) -> Tensor:
        return rows.take(trusted.rows[part])

    count, width = len(classes), rows.width
    decay = weight_decay
    if decay is None:
        mine = uids.gather(trusted.rows)
        decay = chosen_weight_decay(take, targets, mine, classes=count, width=width)
    fit = fit_logistic(take, targets, classes=count, width=width, weight_decay=decay)
    return ClassHead(classes, fit.weight, fit.bias, fit.converged, decay)


def _zero_shot_head(
    model: LoadedModel, labels: Sequence[str], prompts: Sequence[str], device: torch.device
) -> ClassHead:
    """Logits as CLIP gives them: the scaled cosine of image and class."""
    embeddings = class_embeddings(model, labels, prompts or DEFAULT_PROMPTS, device)
    weight = float(clip.logit_scale(model.module)) * embeddings
    return ClassHead(tuple(labels), weight, torch.zeros(len(labels), device=device))


def _own_head(model: LoadedModel, width: int, labels: Sequence[str]) -> ClassHead:
    """The classifier of the reference checkpoint itself."""
    with _other_origins():
        return own_head(model, width=width, labels=labels)


@contextmanager
def _other_origins() -> Iterator[None]:
    """Say of a checkpoint without a fitting classifier where else a head can come from."""
    options = "--trusted COLUMN, or --reference-head FILE"
    try:
        yield
    except ModelError as error:  # its value is a text already, which another error would quote
        error.problem += ", so it cannot serve as the reference head"
        error.next_step = f"say where the reference head comes from: {options}"
        raise


def _require_classes(head: ClassHead) -> None:
    if len(head.classes) < 2:
        raise ConfigError(
            "the pool's labels are all the same, so there is nothing to tell apart",
            got=", ".join(head.classes),
            allowed="at least two classes",
            next_step="check the label column, or give a head that knows more classes with "
            "--reference-head",
        )


def _scored_rows(count: int, trusted: Trusted | None, config: HeadConfig) -> np.ndarray:
    scored = np.ones(count, bool)
    if trusted is not None and not config.score_trusted:
        scored[trusted.rows] = False
    if scored.sum() < 2:
        raise ConfigError(
            "all samples of the pool are trusted, which leaves none to be scored",
            got=f"{len(trusted.rows) if trusted else 0} of {count} samples",
            allowed="at least two samples that are not trusted",
            next_step="trust fewer samples with --trusted, or score them too with --score-trusted",
        )
    return np.flatnonzero(scored)


def _measured(
    head: ClassHead,
    origin: HeadOrigin,
    config: HeadConfig,
    rows: Rows,
    samples: pl.DataFrame,
    scored: np.ndarray,
    trusted: Trusted | None,
) -> Reference:
    """The head with its accuracy on the scored samples, and on the trusted ones."""
    labels = np.array(head.numbers(samples["label"].gather(scored).to_list()))
    predicted = _predictions(head, rows, scored)
    record = HeadRecord(
        origin=origin,
        classes=len(head.classes),
        scored=len(scored),
        accuracy=float((predicted == labels).mean()),
        prompts=(config.prompts or DEFAULT_PROMPTS) if origin == "zero_shot" else (),
        trusted=0 if trusted is None else len(trusted.rows),
        trusted_held_out=0 if trusted is None else trusted.held_out,
        trusted_accuracy=None
        if trusted is None
        else float((_predictions(head, rows, trusted.rows) == head.numbers(trusted.labels)).mean()),
        converged=head.converged,
        disjoint=trusted is None or not config.score_trusted,
        chance=_chance(predicted, labels, len(head.classes)),
        weight_decay=head.weight_decay,
        weight_decay_origin=None if trusted is None else _decay_origin(config, trusted),
    )
    return Reference(head, record, scored, predicted, trusted)


def _decay_origin(config: HeadConfig, trusted: Trusted) -> WeightDecayOrigin:
    if config.weight_decay is not None:
        return "given"
    return "cross_validation" if can_choose(trusted.labels) else "too_few"


def _chance(predicted: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """How often two columns of class numbers (M,) would agree if one were shuffled."""
    shares = [
        np.bincount(column, minlength=classes) / len(column) for column in (predicted, labels)
    ]
    return float(shares[0] @ shares[1])


def _predictions(head: ClassHead, rows: Rows, of: np.ndarray) -> np.ndarray:
    return np.concatenate([head.logits(x).argmax(1).cpu().numpy() for x in rows.blocks(of)])


def spoken_class(label: str) -> str:
    """A label as it is put into a prompt: underscores are read as spaces."""
    return " ".join(label.replace("_", " ").split())


def class_embeddings(
    model: LoadedModel, classes: Sequence[str], prompts: Sequence[str], device: torch.device
) -> Tensor:
    """Unit embeddings (C, D), float32: of each class, the mean over the prompts' unit embeddings.

    Raises:
        ModelError: The model has no text tower.
    """
    if model.tokenizer is None:
        raise ModelError(
            "a model without a text tower cannot describe classes in words",
            got=model.spec.text,
            allowed="an open_clip model",
            next_step="leave --prompt out, and give --trusted or --reference-head",
        )
    texts = [prompt.format(spoken_class(name)) for name in classes for prompt in prompts]
    parts = []
    with torch.no_grad():
        for start in range(0, len(texts), _BATCH):
            tokens = model.tokenizer(texts[start : start + _BATCH]).to(device)
            parts.append(clip.encode_text(model.module, tokens, normalize=True).float())
        embeddings = torch.cat(parts).view(len(classes), len(prompts), -1).mean(1)
    return F.normalize(embeddings, dim=-1)
