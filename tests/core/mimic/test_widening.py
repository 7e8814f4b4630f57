"""Sums in float64 also work for tensors on a device that has no float64."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mimic_core.features.stored import Rows
from mimic_core.mimic import losses
from mimic_core.mimic.grad_match import match_weights
from mimic_core.mimic.losses import widened
from mimic_core.mimic.scores import task_vector
from mimic_core.scoring.labels.logistic import fit_logistic
from mimic_core.scoring.training.check import self_check
from mimic_core.scoring.training.evaluation import evaluate
from tests.core import tiny
from tests.core.feature_sets import feature_set
from tests.core.tiny import PAIRS, batch_of
from tests.places import ROOT

CORE = ROOT / "mimic_core"


class _NoFloat64(TorchFunctionMode):
    """Tensors widen only right after ``cpu()``, as if they were on one of Apple's GPUs."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.double and not getattr(args[0], "moved", False):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        found = func(*args, **(kwargs or {}))
        if func is Tensor.cpu:
            found = found.view_as(found)
            found.moved = True
        return found


@pytest.fixture
def no_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(losses, "_WITHOUT_FLOAT64", frozenset({"cpu"}))
    with _NoFloat64():
        with pytest.raises(TypeError, match="float64"):
            torch.ones(1).double()
        yield


def test_a_tensor_keeps_its_values_and_loses_its_graph() -> None:
    value = torch.tensor([0.1, 2.0], requires_grad=True)
    wide = widened(value)
    assert (wide.dtype, wide.requires_grad) == (torch.float64, False)
    assert wide.tolist() == value.tolist()


@pytest.mark.usefixtures("no_float64")
def test_training_is_checked_and_evaluated_without_float64() -> None:
    model, reference = tiny.clip_vit(0).requires_grad_(True), tiny.clip_vit(1)
    vector = task_vector(model, reference, [tiny.IMAGE_MLP])
    assert self_check(model, PAIRS, batch_of(4, 1), vector) < 1e-4
    words, images = np.arange(8, dtype=np.uint64).reshape(4, 2), np.arange(4)
    found = evaluate(
        model, PAIRS, [batch_of(4, 1)], words=words, images=images, batch_size=4, seed=0
    )
    assert found.held_out_loss is not None


@pytest.mark.usefixtures("no_float64")
def test_heads_are_fitted_and_batches_matched_without_float64(tmp_path: Path) -> None:
    features, targets = torch.eye(4).repeat(3, 1), np.arange(12) % 4
    fit = fit_logistic(
        lambda rows: features[torch.from_numpy(rows)],
        targets,
        classes=4,
        width=4,
        weight_decay=1e-3,
    )
    assert fit.weight.argmax(1).tolist() == [0, 1, 2, 3]
    assert match_weights(torch.eye(2), torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    stored = Rows(feature_set(tmp_path, samples=9), "image_features", torch.device("cpu"))
    assert stored.mean_length(np.arange(9)) > 0


def test_one_line_of_the_core_widens_tensors() -> None:
    """Any tensor may be on a device without float64, wherever it comes from."""
    found = [
        path.relative_to(CORE).as_posix()
        for path in sorted(CORE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "double"
    ]
    assert found == ["mimic/losses.py"]  # in ``widened``
