"""Weights in local files: what they hold is known before it is read, and reading runs no code.

Accepted are safetensors, and torch files with ``weights_only`` that hold a plain state dict or a
training checkpoint. Memory is bounded by the size of the file: nothing in it is compressed, shared
out to larger tensors, sparse, or anywhere but on the CPU.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mimic_core.base.errors import ModelError

# As open_clip and timm prefer them, where a folder holds several.
PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


@dataclass(frozen=True)
class Weights:
    """The tensors of a file: their shapes by name; the values are read when asked for."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    _held: Mapping[str, Tensor] | None = field(default=None, repr=False)

    @property
    def numbers(self) -> int:
        """How many numbers they are, all together."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def tensors(self) -> dict[str, Tensor]:
        """The values, on the CPU, in memory of their own.

        Raises:
            ModelError: The file is damaged.
        """
        if self._held is not None:
            return {name: tensor.clone() for name, tensor in self._held.items()}
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.path)
        except (SafetensorError, OSError) as error:
            raise _damaged(self.path, error) from error


def open_weights(path: Path) -> Weights:
    """What the checkpoint in ``path`` holds.

    A torch file's weights may be under ``state_dict``, ``model_state_dict`` or ``model``; a common
    prefix ``module.`` is removed.

    Raises:
        ModelError: It is no regular file, needs code to be unpickled, is damaged, or holds no
            weights.
    """
    if not path.is_file():
        raise ModelError(
            "the weights are not a regular file",
            got=str(path),
            allowed="a .safetensors file, or a torch file",
            next_step="give a file on this machine",
        )
    if path.suffix == ".safetensors":
        return Weights(path, _safetensors_shapes(path))
    held = _tensors(path, _unpickled(path))
    return Weights(path, {name: tuple(t.shape) for name, t in held.items()}, held)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a local checkpoint, on the CPU, without executing any code.

    Raises:
        ModelError: See ``open_weights``.
    """
    return open_weights(path).tensors()


def find_weights(folder: Path) -> Path:
    """The weights in a model's folder: safetensors before torch files, the usual names first.

    Raises:
        ModelError: There are none, or several that have no usual name.
    """
    found = [file for file in sorted(folder.iterdir()) if file.suffix in _SUFFIXES]
    named = [folder / name for name in PREFERRED if folder / name in found]
    safe = [file for file in found if file.suffix == ".safetensors"]
    chosen = named[:1] if named and (named[0] in safe or not safe) else safe or found
    if len(chosen) != 1:
        raise ModelError(
            "the model folder holds no weights"
            if not found
            else "the model folder holds several files of weights",
            got=", ".join(file.name for file in found[:5]) or str(folder),
            allowed=f"one .safetensors file, or one of {', '.join(PREFERRED[:3])}",
            next_step="leave one of them in the folder, or name the file: CONFIG.json:FILE, or "
            "timm:ARCH:FILE",
        )
    return chosen[0]


def _safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if not shapes:
        raise _no_weights(path, "a safetensors file without tensors")
    return shapes


def _unpickled(path: Path) -> object:
    try:
        mapped = zipfile.is_zipfile(path)
        if mapped:
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type for member in archive.infolist()):
                    raise ModelError(
                        "the checkpoint is refused: its tensors are compressed",
                        got=str(path),
                        allowed="a torch file as torch.save writes it, or safetensors",
                        next_step="save its state dict again",
                    )
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ModelError(
            "the checkpoint is refused: it is a pickle that needs code to be executed "
            f"({str(error).splitlines()[0]})",
            got=str(path),
            allowed="safetensors, or a torch file that holds tensors only",
            next_step="on a machine where you trust it, save its state dict as safetensors",
        ) from error
    except ModelError:
        raise
    except Exception as error:  # the readers of zips and pickles raise many kinds
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> ModelError:
    return ModelError(
        f"the checkpoint cannot be read ({str(error).splitlines()[0] if str(error) else error!r})",
        got=str(path),
        allowed="a .safetensors file, or a torch file with a state dict (no TorchScript archive)",
        next_step="check that the file is complete",
    )


def _no_weights(path: Path, loaded: str) -> ModelError:
    return ModelError(
        "the checkpoint holds no state dict",
        got=loaded,
        allowed="a mapping of parameter names to tensors",
        next_step=f"save model.state_dict() and use that file instead of {path.name}",
    )


def _tensors(path: Path, loaded: object) -> dict[str, Tensor]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    kind = type(loaded).__name__
    if not isinstance(loaded, Mapping):
        raise _no_weights(path, kind)
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
    if not tensors:
        raise _no_weights(path, kind)
    for name, tensor in tensors.items():
        _require_plain(path, name, tensor)
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _require_plain(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse tensors that would be larger in memory than they are in the file."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ModelError(
            f"the checkpoint holds a tensor that is not written out in full: {name}",
            got=str(path),
            allowed="dense tensors on the CPU with all of their values",
            next_step="save its state dict as safetensors",
        )
