"""Mimicscope: score image-text data by how far each sample pulls a model to a better one.

The names of ``__all__`` are the public Python API, ``from mimic_core import score_pool``. Each is
imported when it is first asked for, so importing this package loads neither torch nor polars. What
else a room offers is listed in the ``__init__`` of that room, for instance ``mimic_core.stats``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mimic_core.base.config import RunConfig
    from mimic_core.export.export import replay
    from mimic_core.filters.ensembles.ensemble import ensemble
    from mimic_core.filters.recipe import Recipe, Selection, apply
    from mimic_core.filters.selections import select
    from mimic_core.jobs.worker import start_job
    from mimic_core.mimic.losses import clip_losses, cross_entropy_losses, siglip_losses
    from mimic_core.mimic.scores import mimic_scores, mimic_weights, task_vector
    from mimic_core.models.load import load_model
    from mimic_core.proofs.prove import prove
    from mimic_core.runs.history import run_history
    from mimic_core.runs.layout import ensure_map
    from mimic_core.runs.run import open_run
    from mimic_core.runs.table import run_table
    from mimic_core.scoring.pipeline import score_pool
    from mimic_core.scoring.training.train import train_pool
    from mimic_core.sources.opening import open_source

__all__ = [
    "Recipe",
    "RunConfig",
    "Selection",
    "apply",
    "clip_losses",
    "cross_entropy_losses",
    "ensemble",
    "ensure_map",
    "load_model",
    "mimic_scores",
    "mimic_weights",
    "open_run",
    "open_source",
    "prove",
    "replay",
    "run_history",
    "run_table",
    "score_pool",
    "select",
    "siglip_losses",
    "start_job",
    "task_vector",
    "train_pool",
]
__version__ = "0.1.0"

_WHERE = {
    "Recipe": "filters.recipe",
    "RunConfig": "base.config",
    "Selection": "filters.recipe",
    "apply": "filters.recipe",
    "clip_losses": "mimic.losses",
    "cross_entropy_losses": "mimic.losses",
    "ensemble": "filters.ensembles.ensemble",
    "ensure_map": "runs.layout",
    "load_model": "models.load",
    "mimic_scores": "mimic.scores",
    "mimic_weights": "mimic.scores",
    "open_run": "runs.run",
    "open_source": "sources.opening",
    "prove": "proofs.prove",
    "replay": "export.export",
    "run_history": "runs.history",
    "run_table": "runs.table",
    "score_pool": "scoring.pipeline",
    "select": "filters.selections",
    "siglip_losses": "mimic.losses",
    "start_job": "jobs.worker",
    "task_vector": "mimic.scores",
    "train_pool": "scoring.training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
