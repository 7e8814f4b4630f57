"""Checkpoints of a training run, and where it goes on from.

``checkpoints/epoch-00000.safetensors`` are the weights after that epoch (they load as a model);
``optimiser-00000.safetensors`` is the optimiser's state, kept for the last epoch alone.
``state.json`` is written last and names the last epoch that is finished in every respect: scores,
metrics, weights, optimiser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from mimic_core.base import files
from mimic_core.base.errors import RunError
from mimic_core.models.class_names import names_metadata
from mimic_core.scoring.training.optimisation import Updater

_STATE = "state.json"


def weights_file(folder: Path, epoch: int) -> Path:
    """Where the weights after ``epoch`` are."""
    return folder / f"epoch-{epoch:05d}.safetensors"


def store(
    folder: Path, epoch: int, module: nn.Module, updater: Updater, *, classes: Sequence[str] = ()
) -> None:
    """Keep what ``epoch`` has led to, and declare it finished.

    Args:
        classes: What a classifier's outputs stand for, in their order; stored with its weights.
    """
    _write(weights_file(folder, epoch), module.state_dict(), names_metadata(classes))
    _write(_optimiser_file(folder, epoch), updater.state())
    files.write_json(folder / _STATE, {"epoch": epoch, "step": updater.step})
    for old in sorted(folder.glob("optimiser-*.safetensors")):
        if old != _optimiser_file(folder, epoch):
            old.unlink()


def finished_epoch(folder: Path) -> int | None:
    """The last finished epoch; None before the first."""
    if not (folder / _STATE).exists():
        return None
    return int(files.read_json(folder / _STATE)["epoch"])


def restore(folder: Path, epoch: int, module: nn.Module, updater: Updater) -> None:
    """Put ``module`` and ``updater`` where they were after ``epoch``.

    Raises:
        RunError: A checkpoint is missing or damaged.
    """
    restore_weights(folder, epoch, module)
    updater.load(_read(_optimiser_file(folder, epoch)))


def restore_weights(folder: Path, epoch: int, module: nn.Module) -> None:
    """Put ``module`` where it was after ``epoch``; errors as for ``restore``."""
    file = weights_file(folder, epoch)
    try:
        module.load_state_dict(_read(file))
    except RuntimeError as error:
        raise _damaged(file, error) from error


def _optimiser_file(folder: Path, epoch: int) -> Path:
    return folder / f"optimiser-{epoch:05d}.safetensors"


def _write(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    from safetensors.torch import save

    # Tied weights share memory, which the format does not know.
    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    files.write_bytes(path, save(copies, metadata=dict(metadata) if metadata else None))


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RunError:
    return RunError(
        f"a checkpoint of the run cannot be read ({' '.join(str(error).split())[:200]})",
        got=str(path),
        next_step="delete the run's folder and train again",
    )
