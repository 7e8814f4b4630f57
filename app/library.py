"""Which runs there are: those of the user's runs root and the finished one that comes along."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ConfigError, MimicError
from mimic_core.runs.run import Run, open_run

ROOT_VARIABLE = "MIMICSCOPE_RUNS"
REPOSITORY = Path(__file__).resolve().parents[1]
DEMO_POOL = REPOSITORY / "data_samples" / "pool"
DEMO_REFERENCE = REPOSITORY / "data_samples" / "reference"
BUNDLED_ROOT = REPOSITORY / "data_samples" / "runs"


@dataclass(frozen=True, slots=True)
class Library:
    """Runs that open, newest first, and folders that look like runs but do not."""

    runs: tuple[Run, ...]
    damaged: tuple[tuple[Path, MimicError], ...]

    def find(self, run_id: str | None) -> Run | None:
        """The run of that id; the user's own before the bundled one."""
        return next((run for run in self.runs if run.id == run_id), None)


def runs_root() -> Path:
    """Where new runs are written: ``MIMICSCOPE_RUNS``, else ``runs`` in the working directory."""
    return Path(os.environ.get(ROOT_VARIABLE) or "runs").resolve()


def open_library(
    root: Path, bundled: Path | None = None, *, opener: Callable[[Path], Run] = open_run
) -> Library:
    """Open every run under ``root``, then those under ``bundled`` (None: those that come along)."""
    runs: list[Run] = []
    damaged: list[tuple[Path, MimicError]] = []
    for place in dict.fromkeys([root.resolve(), (bundled or BUNDLED_ROOT).resolve()]):
        here = []
        for file in place.glob("*/run.json"):
            try:
                here.append(opener(file.parent))
            except MimicError as error:
                damaged.append((file.parent, error))
        here.sort(key=lambda run: (run.record.created_at, run.id), reverse=True)
        known = {run.id for run in runs}
        runs += [run for run in here if run.id not in known]
    return Library(tuple(runs), tuple(sorted(damaged, key=lambda pair: pair[0])))


def located(config: RunConfig) -> RunConfig:
    """``config`` with paths that hold here: others are tried relative to the repository.

    The bundled run was made in the repository's root, which need not be the working directory.
    """
    source, reference = config.source.path, config.reference
    if not Path(source).exists() and (REPOSITORY / source).exists():
        source = str(REPOSITORY / source)
    if not Path(reference).exists() and (REPOSITORY / reference).exists():
        reference = str(REPOSITORY / reference)
    pool = config.source.model_copy(update={"path": source})
    return config.model_copy(update={"source": pool, "reference": reference})


def expanded(text: str) -> Path:
    """The path that a person typed, ``~`` and ``~name`` replaced by home folders.

    Raises:
        ConfigError: Nobody of that name has a home folder here.
    """
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
