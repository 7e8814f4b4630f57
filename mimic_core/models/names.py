"""From a model's name to what it names, with nothing assumed silently; nothing is loaded here.

A specification is one of::

    ARCH:TAG            open_clip architecture and published weights    ViT-B-32:laion2b_s34b_b79k
    ARCH:PATH           the same with a local .safetensors or .pt file  ViT-B-32:/weights/last.pt
    ARCH:random:SEED    random weights                                  ViT-B-32:random:0
    CONFIG.json:PATH, CONFIG.json:random:SEED                           a custom open_clip config
    FOLDER              open_clip_config.json, or timm's config.json, and weights
    hf-hub:ORG/NAME     a Hugging Face repository in open_clip's layout
    timm:ARCH:TAG, timm:ARCH:PATH, timm:ARCH.TAG:PATH, timm:ARCH:random:SEED
    timm:FOLDER, timm:hf-hub:ORG/NAME                                   timm's layout
    MODULE.py:FUNCTION  a torch module that your own file builds        my_models.py:backbone
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mimic_core.base.errors import ModelError
from mimic_core.base.specification import OWN_MODULE

OPEN_CLIP_FORMS = (
    "ARCH:TAG, ARCH:PATH, ARCH:random:SEED, CONFIG.json:PATH, a folder, hf-hub:ORG/NAME"
)
TIMM_FORMS = "timm:ARCH:TAG, timm:ARCH:PATH, timm:ARCH:random:SEED, timm:FOLDER"
FORMS = f"{OPEN_CLIP_FORMS}, {TIMM_FORMS}, or MODULE.py:FUNCTION"
OPEN_CLIP_CONFIG = "open_clip_config.json"
TIMM_CONFIG = "config.json"  # beside the weights, as timm's own repositories have it
_TIMM, _HUB, _LOCAL = "timm:", "hf-hub:", "local-dir:"
_SEED = re.compile(r"[0-9]{1,20}")
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(@[\w./-]+)?", re.ASCII)

Library = Literal["open_clip", "timm", "own"]
WeightsKind = Literal["tag", "file", "random", "folder", "hub", "function"]


@dataclass(frozen=True)
class ModelSpec:
    """A parsed specification.

    ``arch`` is the library's name of an architecture (of timm's with a tag, if one was given), a
    config's path, a folder, the name of a repository, or a Python file. ``weights`` is what
    ``kind`` says: a tag, a path, a seed, the name of a function, or nothing.
    """

    text: str
    library: Library
    arch: str
    kind: WeightsKind
    weights: str = ""

    @property
    def seed(self) -> int:
        """Seed of random weights; 0 for all others, which draw nothing that is kept."""
        return int(self.weights) if self.kind == "random" else 0

    @property
    def base(self) -> str:
        """The architecture without timm's tag."""
        return self.arch.partition(".")[0]


def parse_spec(text: str) -> ModelSpec:
    """Read a specification.

    Raises:
        ModelError: It has none of the accepted forms, or names a file or tag that does not exist.
    """
    if text.startswith(_TIMM):
        return _timm(text, text.removeprefix(_TIMM))
    if (own := OWN_MODULE.fullmatch(text)) and not is_file(text):
        return _own(text, own["file"], own["function"] or "")
    if text.startswith(_HUB):
        return ModelSpec(text, "open_clip", _repository(text, text.removeprefix(_HUB)), "hub")
    folder = text.removeprefix(_LOCAL)
    if _is_folder(folder):
        if is_file(folder, TIMM_CONFIG) and not is_file(folder, OPEN_CLIP_CONFIG):
            return ModelSpec(text, "timm", folder, "folder")
        return _folder(text, "open_clip", folder, OPEN_CLIP_CONFIG)
    return _open_clip(text)


def refuse_own(names: Iterable[str | None]) -> None:
    """Raise a ``ModelError`` where one of ``names`` would run code of a file.

    For whoever takes models from a stored configuration and not from a person's own command: a
    run's folder may come from anywhere.
    """
    for text in names:
        if text is not None and OWN_MODULE.fullmatch(text):
            raise ModelError(
                "a module of your own runs from the command line or Python alone",
                got=text,
                allowed="all other models",
                next_step="score with mimicscope score --reference MODULE.py:FUNCTION",
            )


def is_file(*path: str) -> bool:
    """Whether a regular file has that path; a text that can be no path names none."""
    try:
        return Path(*path).is_file()
    except (OSError, ValueError):  # too long, a NUL, a folder that may not be read
        return False


def _is_folder(path: str) -> bool:
    try:
        return bool(path) and Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _own(text: str, file: str, function: str) -> ModelSpec:
    if not function.isidentifier():
        raise ModelError(
            "a Python file must be named with the function that builds the model",
            got=text,
            allowed="MODULE.py:FUNCTION, a function without arguments",
            next_step=f"for example {Path(file).name}:build",
        )
    if not is_file(file):
        raise ModelError(
            "the Python file does not exist",
            got=text,
            allowed="MODULE.py:FUNCTION",
            next_step="check the path",
        )
    return ModelSpec(text, "own", file, "function", function)


def _repository(text: str, name: str) -> str:
    if _REPOSITORY.fullmatch(name) is None or ".." in name:
        raise ModelError(
            "that is no name of a Hugging Face repository",
            got=text,
            allowed="hf-hub:ORG/NAME",
            next_step="correct it",
        )
    return name


def _folder(text: str, library: Library, folder: str, config: str) -> ModelSpec:
    if not is_file(folder, config):
        raise ModelError(
            f"the model folder holds no {config}",
            got=folder,
            allowed=f"a folder with {OPEN_CLIP_CONFIG} (or timm's {TIMM_CONFIG}) and weights, "
            "a .safetensors or .pt file",
            next_step="name the folder that open_clip's or timm's push or save wrote",
        )
    return ModelSpec(text, library, folder, "folder")


def _seed(text: str, weights: str) -> str | None:
    """The seed of ``random:SEED``; None where random weights are not asked for."""
    word, _, seed = weights.partition(":")
    if word != "random":
        return None
    if _SEED.fullmatch(seed) is None or int(seed) >= 2**64:
        raise ModelError(
            "the seed of random weights must be a whole number from 0 to 2**64 - 1",
            got=text,
            allowed="ARCH:random:SEED",
            next_step="for example ViT-B-32:random:0",
        )
    return str(int(seed))


def _no_weights(text: str, tags: str) -> ModelError:
    return ModelError(
        "the weights are neither a file on this machine nor a published tag",
        got=text,
        allowed=f"{tags}; a regular file; random:SEED",
        next_step="correct the tag or the path, or use random:0 to try things out",
    )


# --- open_clip ---


def _open_clip(text: str) -> ModelSpec:
    arch, _, weights = text.partition(":")
    if not weights:
        raise ModelError(
            "the model specification names no weights and is not a folder",
            got=text,
            allowed=FORMS,
            next_step=f"for example {arch or 'ViT-B-32'}:random:0, or a published tag",
        )
    _require_open_clip(arch)
    if not is_file(weights) and (seed := _seed(text, weights)) is not None:
        return ModelSpec(text, "open_clip", arch, "random", seed)
    if is_file(weights):
        return ModelSpec(text, "open_clip", arch, "file", weights)
    tags = [] if arch.endswith(".json") else open_clip_tags(arch)
    if weights not in tags:
        raise _no_weights(text, f"tags of {arch}: {', '.join(tags) or 'none'}")
    return ModelSpec(text, "open_clip", arch, "tag", weights)


def open_clip_tags(arch: str) -> list[str]:
    """Tags of the published weights of one of open_clip's architectures."""
    import open_clip

    return list(open_clip.list_pretrained_tags_by_model(arch))


def _require_open_clip(arch: str) -> None:
    import open_clip

    if arch.endswith(".json"):
        if is_file(arch):
            return
        raise ModelError(
            "the config file does not exist",
            got=arch,
            allowed="a regular file in JSON",
            next_step="check the path",
        )
    known = open_clip.list_models()
    if arch not in known:
        near = difflib.get_close_matches(arch, known, n=5, cutoff=0.4)
        raise ModelError(
            "open_clip has no architecture of that name",
            got=arch,
            allowed=f"near matches: {', '.join(near) or 'none'}; accepted forms: {FORMS}",
            next_step="all: python -c 'import open_clip; print(open_clip.list_models())'",
        )


# --- timm ---


def _timm(text: str, name: str) -> ModelSpec:
    if name.startswith(_HUB):
        return ModelSpec(text, "timm", _repository(text, name.removeprefix(_HUB)), "hub")
    folder = name.removeprefix(_LOCAL)
    if _is_folder(folder):
        return _folder(text, "timm", folder, TIMM_CONFIG)
    arch, _, weights = name.partition(":")
    require_timm(arch, text)
    if not is_file(weights) and (seed := _seed(text, weights)) is not None:
        return ModelSpec(text, "timm", arch, "random", seed)
    if is_file(weights):
        return ModelSpec(text, "timm", arch, "file", weights)
    tags = timm_tags(arch)
    if weights not in tags:
        raise _no_weights(text, f"{TIMM_FORMS}; tags of {arch}: {', '.join(tags) or 'none'}")
    if arch.partition(".")[2] not in ("", weights):
        raise ModelError(
            "the architecture's tag and the weights' tag differ",
            got=text,
            allowed="one of them",
            next_step=f"use timm:{arch.partition('.')[0]}:{weights}",
        )
    return ModelSpec(text, "timm", arch.partition(".")[0], "tag", weights)


def require_timm(arch: str, text: str) -> None:
    """Raise a ``ModelError`` with near matches unless timm knows ``arch`` and its tag, if any."""
    import timm

    base, _, tag = arch.partition(".")
    if not timm.is_model(base) or (tag and tag not in timm_tags(base)):
        near = difflib.get_close_matches(base, timm.list_models(), n=5, cutoff=0.4)
        raise ModelError(
            "timm has no architecture of that name",
            got=text,
            allowed=f"near matches: {', '.join(near) or 'none'}; accepted forms: {TIMM_FORMS}",
            next_step="all: python -c 'import timm; print(timm.list_models())'",
        )


def timm_tags(arch: str) -> list[str]:
    """Tags of the published weights of one of timm's architectures."""
    import timm

    base = arch.partition(".")[0]
    names: list[str] = timm.list_pretrained(f"{base}.*")
    return [name.partition(".")[2] for name in names]
