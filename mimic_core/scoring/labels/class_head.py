"""A linear classifier on features: on disk, from a checkpoint, with the names of its classes.

Letters: C classes, F feature width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mimic_core.base import files
from mimic_core.base.errors import ModelError
from mimic_core.models import classifiers
from mimic_core.models.checkpoints import read_state_dict
from mimic_core.models.class_names import names_metadata, written_names
from mimic_core.models.load import LoadedModel

HEAD_FILE = "reference_head.safetensors"
# Where classifiers keep their last layer; a bare pair of tensors first.
_PLACES = ("", *(f"{name}." for name in classifiers.HEADS))


@dataclass(frozen=True, eq=False)
class ClassHead:
    """``logits = features @ weight.T + bias``: classes (C), weight (C, F), bias (C,).

    Of a head that Mimicscope has trained, ``weight_decay`` is that of its training, and
    ``converged`` is false where that has not come to its end.
    """

    classes: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    converged: bool = True
    weight_decay: float | None = None

    def logits(self, features: Tensor) -> Tensor:
        """Logits (B, C) of ``features`` (B, F)."""
        return features @ self.weight.T + self.bias

    def to(self, device: torch.device) -> ClassHead:
        """The same head on ``device``."""
        return replace(self, weight=self.weight.to(device), bias=self.bias.to(device))

    def numbers(self, labels: Sequence[str]) -> list[int]:
        """Class numbers of ``labels``.

        Raises:
            ModelError: A label is none of the head's classes.
        """
        known = {name: number for number, name in enumerate(self.classes)}
        unknown = sorted(set(labels) - set(known))
        if unknown:
            raise ModelError(
                f"the reference head does not know {len(unknown)} of the pool's labels",
                got=", ".join(unknown[:10]),
                allowed=f"its {len(self.classes)} classes: {', '.join(self.classes[:20])}",
                next_step="use a head that knows them, trust samples of every class, or leave "
                "the samples with these labels out of the pool",
            )
        return [known[label] for label in labels]


def store_class_head(path: Path, head: ClassHead) -> None:
    """Write ``head`` as safetensors, names of the classes included; equal heads, equal bytes."""
    from safetensors.torch import save

    tensors = {
        "weight": head.weight.float().cpu().contiguous(),
        "bias": head.bias.float().cpu().contiguous(),
    }
    files.write_bytes(path, save(tensors, metadata=names_metadata(head.classes)))


def read_class_head(path: Path, *, width: int, labels: Sequence[str]) -> ClassHead:
    """The head in ``path``: one that a run has stored, or the last layer of a classifier.

    Args:
        width: F of the features it is for.
        labels: The pool's classes, sorted: where the file names none, see ``named_classes``.

    Raises:
        ModelError: It holds no head, or one for other features.
    """
    require_head_file(path)
    tensors, names = read_state_dict(path), written_names(path)
    prefix = next((p for p in _PLACES if _is_head(tensors, p)), None)
    if prefix is None:
        raise ModelError(
            "the file holds no classifier's last layer",
            got=", ".join(list(tensors)[-4:]),
            allowed=", ".join(f"{prefix}weight" for prefix in _PLACES) + " with two dimensions",
            next_step="save the last layer's weight and bias under these names as safetensors",
        )
    weight = tensors[f"{prefix}weight"].float()
    bias = tensors.get(f"{prefix}bias", torch.zeros(len(weight))).float()
    return checked_head(weight, bias, names, width=width, labels=labels, where=str(path))


def require_head_file(path: Path) -> None:
    """Raise a ``ModelError`` where ``path`` is no file."""
    if not path.is_file():
        raise ModelError(
            "the file of the reference head does not exist",
            got=str(path),
            next_step="correct --reference-head",
        )


def _is_head(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    weight = tensors.get(f"{prefix}weight")
    return weight is not None and weight.ndim == 2


def own_head(model: LoadedModel, *, width: int, labels: Sequence[str]) -> ClassHead:
    """The classifier that a checkpoint brings along, for features of ``width``.

    Args:
        labels: The pool's classes, sorted: where the checkpoint names none, see ``named_classes``.

    Raises:
        ModelError: It has no trained classifier, or one for other features.
    """
    layer = trained_classifier(model)
    weight = layer.weight.detach().float()
    held: Tensor | None = layer.bias  # annotated as always there, which it is not
    bias = torch.zeros_like(weight[:, 0]) if held is None else held.detach().float()
    where = f"the classifier of {model.spec.text}"
    return checked_head(weight, bias, model.classes, width=width, labels=labels, where=where)


def trained_classifier(model: LoadedModel) -> nn.Linear:
    """The linear layer that a checkpoint's classifier ends in.

    Raises:
        ModelError: It has none that was trained.
    """
    layer = None
    if model.tokenizer is None and model.spec.kind != "random":
        layer = classifiers.linear_head(model.module)
    if layer is None:
        raise ModelError(
            "the model has no trained classifier of its own",
            got=model.spec.text,
            allowed="a checkpoint of a classifier that ends in a linear layer",
            next_step="use such a checkpoint",
        )
    return layer


def checked_head(
    weight: Tensor,
    bias: Tensor,
    names: Sequence[str],
    *,
    width: int,
    labels: Sequence[str],
    where: str,
) -> ClassHead:
    """A head that fits features of ``width`` and has a name for each output.

    Raises:
        ModelError: It does not.
    """
    if weight.shape[1] != width or len(bias) != len(weight):
        raise ModelError(
            "the reference head is for other features",
            got=f"{where}: weight {tuple(weight.shape)}, bias {tuple(bias.shape)}",
            allowed=f"a weight (classes, {width}), as the reference model's features have it",
            next_step="use a head that was trained on this reference model's features",
        )
    if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise ModelError(
            "the reference head holds non-finite weights", got=where, next_step="use another head"
        )
    return ClassHead(named_classes(names, len(weight), labels, where), weight, bias)


def named_classes(
    names: Sequence[str], count: int, labels: Sequence[str], where: str
) -> tuple[str, ...]:
    """Names of a head's outputs: its own, else numbers, else the pool's classes in sorted order.

    Sorted order is how torchvision and timm number class folders; whether it holds here shows in
    the head's accuracy, which every run reports.

    Raises:
        ModelError: There are no names, and the pool's classes are not as many.
    """
    if len(names) == count and len(set(names)) == count:
        return tuple(names)
    if names:
        raise ModelError(
            "the reference head does not have one name for each output",
            got=f"{where}: {count} outputs, {len(set(names))} different names",
            next_step="correct the names of its classes",
        )
    if all(label.isascii() and label.isdecimal() and int(label) < count for label in labels):
        return tuple(str(number) for number in range(count))
    if len(labels) == count:
        return tuple(sorted(labels))
    raise ModelError(
        "nothing says which classes the reference head's outputs stand for",
        got=f"{where}: {count} outputs; the pool has {len(labels)} classes",
        allowed="as many outputs as classes, labels that are class numbers, or a safetensors head "
        'with "classes" in its metadata',
        next_step="add the names of the classes to the head's metadata as a JSON list",
    )
