"""Which runs there are: those of the user's runs root and the finished one that comes along."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ConfigError
from mimic_core.base.identity import slug
from mimic_core.base.remote import as_place, is_remote
from mimic_core.runs.run import Run, RunList, list_runs, open_run

ROOT_VARIABLE = "MIMICSCOPE_RUNS"
READ_VARIABLE = "MIMICSCOPE_ROOTS"  # folders joined as in PATH; set by ``mimicscope app --root``
REPOSITORY = Path(__file__).resolve().parents[1]
DEMO_POOL = REPOSITORY / "data_samples" / "pool"
DEMO_REFERENCE = REPOSITORY / "data_samples" / "reference"
_CHUNK = 1 << 20
BUNDLED_ROOT = REPOSITORY / "data_samples" / "runs"


def runs_root() -> Path:
    """Where new runs are written: ``MIMICSCOPE_RUNS``, else ``runs`` in the working directory."""
    return Path(os.environ.get(ROOT_VARIABLE) or "runs").resolve()


def open_library(
    root: Path, bundled: Path | None = None, *, opener: Callable[[Path], Run] = open_run
) -> RunList:
    """The runs under ``root``, then those under ``bundled`` (None: those that come along) that it
    does not hold.
    """
    places = dict.fromkeys([root.resolve(), (bundled or BUNDLED_ROOT).resolve()])
    own, *others = [list_runs(place, opener=opener) for place in places]
    for other in others:
        more = tuple(run for run in other.runs if own.find(run.id) is None)
        damaged = sorted((*own.damaged, *other.damaged), key=lambda pair: pair[0])
        own = RunList((*own.runs, *more), tuple(damaged))
    return own


def located(config: RunConfig) -> RunConfig:
    """``config`` with paths that hold here: others are tried relative to the repository.

    The bundled run was made in the repository's root, which need not be the working directory.
    """
    reference = config.reference
    paths = [
        str(REPOSITORY / path) if not Path(path).exists() and (REPOSITORY / path).exists() else path
        for path in config.source.paths
    ]
    if not Path(reference).exists() and (REPOSITORY / reference).exists():
        reference = str(REPOSITORY / reference)
    pool = config.source.model_copy(update={"path": paths[0], "also": tuple(paths[1:])})
    return config.model_copy(update={"source": pool, "reference": reference})


def roots() -> tuple[Path, ...] | None:
    """The folders that the app may read and write, links resolved; None for all.

    The runs and the demo are always among them.
    """
    said = os.environ.get(READ_VARIABLE)
    if not said:
        return None
    own = [Path(part) for part in said.split(os.pathsep) if part]
    places = (*own, runs_root(), REPOSITORY / "data_samples")
    return tuple(dict.fromkeys(path.resolve() for path in places))


def require_allowed(path: Path) -> Path:
    """``path`` itself, if it lies, links resolved, in one of ``roots``.

    Raises:
        ConfigError: It does not.
    """
    allowed = roots()
    real = path.resolve()
    if allowed is None or any(real.is_relative_to(root) for root in allowed):
        return path
    raise ConfigError(
        "this place is outside of the folders that the app may use",
        got=str(path),
        allowed=", ".join(map(str, allowed)),
        next_step="choose a place inside, or start the app with --root for that folder",
    )


def require_allowed_config(config: RunConfig) -> RunConfig:
    """``config``, if all files that it names may be read; links in its pool lead no further.

    Raises:
        ConfigError: One may not.
    """
    source = config.source
    for folder in (*source.paths, *([source.image_root] if source.image_root else [])):
        require_allowed(expanded(folder))
    head = config.head.file if config.head else None
    scorer = config.training or config.snapshot
    for spec in (config.reference, scorer.model if scorer else None, head):
        for part in {spec, *spec.split(":")} if spec else ():
            path = Path(os.path.expanduser(part))  # noqa: PTH111 - as in expanded
            if part and path.exists():  # hub names are no files
                require_allowed(path)
    return config.model_copy(
        update={"source": source.model_copy(update={"link_roots": link_roots()})}
    )


def link_roots() -> tuple[str, ...]:
    """Where links inside of a pool may lead (``SourceConfig.link_roots``); empty for anywhere."""
    return tuple(str(root) for root in roots() or () if root.is_dir())


def expanded(text: str) -> Path:
    """The path that a person typed, ``~`` and ``~name`` replaced by home folders, or in object
    storage, which is outside of all ``roots``.

    Raises:
        ConfigError: Nobody of that name has a home folder here, or no file can have that name.
    """
    if "\0" in text:
        raise ConfigError(
            "no file can have a zero byte in its name", got=text, next_step="type the path again"
        )
    if is_remote(text):
        return as_place(text)
    path = os.path.expanduser(text)  # noqa: PTH111 - Path's raises a bare RuntimeError
    if path.startswith("~"):
        raise ConfigError(
            "there is no home folder of that name on this machine",
            got=text,
            allowed="~/… for your own, ~name/… for another user's",
            next_step="check the name, or type the whole path",
        )
    return Path(path)


def tidy_path(path: Path) -> str:
    """``path`` relative to the working directory where it lies inside, else absolute."""
    path = path.resolve()
    here = Path.cwd().resolve()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


def store_upload(data: BinaryIO, name: str, root: Path) -> Path:
    """Write an upload under ``root`` at once, so that neither memory nor the session holds it.

    The name holds a hash of the content, so the same file again is the same file, and of the name
    that it came with only what is safe, with its suffix.
    """
    folder = root / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{os.getpid()}-{id(data)}.part"
    checksum = hashlib.sha256()
    data.seek(0)
    with partial.open("wb") as out:
        while chunk := data.read(_CHUNK):
            checksum.update(chunk)
            out.write(chunk)
    suffix = Path(name).suffix.lower()
    suffix = suffix if suffix[1:].isalnum() and suffix.isascii() else ""
    target = folder / f"{slug(name)}-{checksum.hexdigest()[:12]}{suffix}"
    partial.replace(target)
    return target
