"""Torch modules that your own file builds: ``MODULE.py:FUNCTION``, asked for explicitly.

The function takes no arguments and returns an image model, or ``(model, tokenizer)``. An image
model maps images (U, 3, H, W) to logits (U, C) by a last linear layer, or to features (U, F); it
may name its outputs in an attribute ``classes``. A model with a tokenizer has ``encode_image``,
``encode_text`` and ``logit_scale``, as open_clip's have. This is the only place where Mimicscope
runs code that it is pointed to, and only a person can point: no checkpoint or config leads here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from mimic_core.base.errors import ModelError
from mimic_core.models.building import Built, Tokenizer, first_line
from mimic_core.models.names import ModelSpec
from mimic_core.models.preprocessing import Settings, chosen_preprocessing, completed

_RETURNS = "a torch module, or (module, tokenizer) for images with captions"


class OwnTokenizer:
    """A tokenizer from a user's file, which loading processes import again from there."""

    def __init__(self, file: str, tokenizer: Callable[[list[str]], Tensor]) -> None:
        self._file = file
        self._tokenizer = tokenizer
        encode = getattr(tokenizer, "encode", None)
        if callable(encode):
            self.encode = encode

    def __call__(self, texts: list[str]) -> Tensor:
        """Tokens (B, L) int64 of ``texts``."""
        tokens: object = self._tokenizer(texts)
        if not isinstance(tokens, Tensor) or tokens.ndim != 2 or len(tokens) != len(texts):
            raise ModelError(
                "the tokenizer does not give one row of tokens for each text",
                got=type(tokens).__name__ if not isinstance(tokens, Tensor) else tokens.shape,
                allowed=f"a tensor ({len(texts)}, L) of whole numbers",
                next_step=f"correct the tokenizer in {self._file}",
            )
        return tokens.long()

    def __reduce__(self) -> tuple[Any, ...]:
        return _tokenizer_again, (self._file, pickle.dumps(self._tokenizer))


def _tokenizer_again(file: str, pickled: bytes) -> OwnTokenizer:
    _imported(Path(file))
    return OwnTokenizer(file, pickle.loads(pickled))  # noqa: S301 - this process's own parent made it


def load(spec: ModelSpec, choice: str | None, like: Settings | None) -> Built:
    """Build ``spec``; the arguments are those of ``open_clip_models.load``.

    Raises:
        ModelError: The file, its function or what it returns cannot be used, or no preprocessing
            was given.
    """
    if like is None and choice is None:
        raise ModelError(
            "nothing says how images are prepared for a module of your own",
            got=spec.text,
            allowed="--preprocess with a JSON file: size, mean, std, interpolation, resize_mode",
            next_step="give the preprocessing that the module was trained with",
        )
    file = Path(spec.arch).resolve()
    module, tokenizer = _made(spec, file)
    if like is not None:
        settings, origin = like, "the reference's"
    else:
        chosen, origin = chosen_preprocessing(str(choice))
        settings = completed(chosen, _built_size(module))
    module = module.float().cpu()
    if tokenizer is not None:
        _require_towers(spec, module)
    source = hashlib.sha256(file.read_bytes()).hexdigest()
    names = getattr(module, "classes", ())
    classes = tuple(map(str, names)) if isinstance(names, list | tuple) else ()
    return Built(module, settings, origin, ["own", source, spec.weights], tokenizer, classes)


def _made(spec: ModelSpec, file: Path) -> tuple[nn.Module, Tokenizer | None]:
    """What the function returns, taken apart."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            function = getattr(_imported(file), spec.weights, None)
            if not callable(function):
                raise _misuse(spec, "the file has no such function", spec.weights)
            made = function()
    except ModelError:
        raise
    except Exception as error:  # whatever the user's own code raises
        line = _line_in(file, error)
        raise _misuse(
            spec, f"the function failed{line}", f"{type(error).__name__}: {first_line(error)}"
        ) from error
    module, tokenizer = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise _misuse(spec, "the function returns no torch module", type(made).__name__)
    if tokenizer is None:
        return module, None
    if not callable(tokenizer):
        raise _misuse(spec, "the tokenizer cannot be called", type(tokenizer).__name__)
    return module, OwnTokenizer(str(file), tokenizer)


def _misuse(spec: ModelSpec, problem: str, got: object) -> ModelError:
    return ModelError(
        f"{problem} ({spec.text})",
        got=got,
        allowed=f"a function without arguments that returns {_RETURNS}",
        next_step=f"correct {spec.arch}",
    )


def _line_in(file: Path, error: BaseException) -> str:
    """Where in the user's file it failed, as far as it did there."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" in line {lines[-1]} of {file.name}" if lines else ""


def _imported(file: Path) -> ModuleType:
    """The user's file as a module; its folder can be imported from, as when Python runs it."""
    name = f"mimicscope_own_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    found = sys.modules.get(name)
    if found is not None:
        return found
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _built_size(module: nn.Module) -> Settings:
    """The size that a module says it was built for, as open_clip's towers do."""
    size = getattr(
        module, "image_size", getattr(getattr(module, "visual", None), "image_size", None)
    )
    if isinstance(size, int):
        return {"size": [size, size]}
    return {"size": list(size)} if isinstance(size, list | tuple) and len(size) == 2 else {}


def _require_towers(spec: ModelSpec, module: nn.Module) -> None:
    lacking = [
        name for name in ("encode_image", "encode_text", "logit_scale") if not hasattr(module, name)
    ]
    if lacking:
        raise _misuse(spec, "a model with a tokenizer lacks what captions need", ", ".join(lacking))
