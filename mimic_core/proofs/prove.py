"""Does a recipe help? Training on what it keeps, against a random subset and against everything.

For every recipe, for random subsets of its size and for all samples, ``prove`` trains fresh models
on cached features with plain weights, at equal steps and batch size, and judges them on trusted
samples that never train. ``mimic_core.proofs.intervals`` says how far the result can be believed,
and ``docs/prove.md`` how that was checked.

Letters: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import torch

from mimic_core.base.draws import uid_words
from mimic_core.base.errors import ConfigError
from mimic_core.base.identity import digest, uids_digest
from mimic_core.base.progress import Progress, Silent
from mimic_core.base.schema import named
from mimic_core.filters import recipe as filters
from mimic_core.filters.recipe import Recipe, Selection
from mimic_core.proofs.arms import ArmPlan, check_names, plan_arms, smallest_half
from mimic_core.proofs.judge import judge
from mimic_core.proofs.power import replanned
from mimic_core.proofs.record import Proof, ProvedRecipe, proof_file, read_proof, store_proof
from mimic_core.proofs.settings import ProveConfig
from mimic_core.proofs.split import Split, split_pool
from mimic_core.proofs.tasks import Task, open_task
from mimic_core.proofs.trainings import train_arms
from mimic_core.proofs.trusted import held_out_mask, need_trust, trusted_mask
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.history import run_history
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table

MIN_TRAINED = 16  # a half of an arm must hold at least this many samples
_PROOF_CODE = 3  # raise it when equal inputs would give another result


def prove(
    source: Run | FeatureSet,
    recipes: Mapping[str, Recipe],
    config: ProveConfig,
    *,
    held_out: pl.Series | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Proof:
    """Prove ``recipes`` on a run, whose folder keeps the result; or on a bare feature set.

    Args:
        recipes: By the name that the report uses; see ``arms.check_names``.
        held_out: uids that judge, in place of ``config.trusted``.

    Returns:
        The proof; the stored one where equal inputs have been proved before. ``config.detect`` is
        no such input: it is worked out anew from the stored errors.

    Raises:
        ConfigError: Nothing marks good samples, a recipe keeps too few samples or has the name
            of another arm.
        FilterError: A recipe does not fit the run.
        Interrupted: ``progress.check`` asked to stop; nothing is stored then.
    """
    say = progress or Silent()
    check_names(recipes)
    features, table = _opened(source)
    selections = _selections(source, table, recipes)
    task = open_task(features, config, device)
    split = _split(features, table, config, held_out, task, say)
    name = _proof_id(source, selections, split, config)
    if isinstance(source, Run) and proof_file(source.path, name).exists():
        say.note(f"proof {name} is there already")
        return _asked_anew(source, read_proof(proof_file(source.path, name)), config)
    uids = features.samples["uid"]
    plan = plan_arms(selections, uids, split.trainable)
    words = uid_words(uids)
    batch_size, notes = _batch_size(plan, words, config)
    trained = train_arms(
        plan,
        words,
        split.held_out,
        task,
        config,
        batch_size=batch_size,
        progress=say,
    )
    proof = judge(
        plan,
        trained,
        split,
        config,
        metrics=task.metrics,
        proved=[_proved(n, s, plan) for n, s in selections.items()],
        identity={
            "proof_id": name,
            "run": source.id,
            "feature_set": features.id,
            "task": task.kind,
            "batch_size": batch_size,
            "notes": notes,
        },
    )
    if isinstance(source, Run):
        store_proof(source.path, proof)
    return proof


def _asked_anew(run: Run, proof: Proof, config: ProveConfig) -> Proof:
    """The stored proof, with the difference that is asked for now: that needs no training."""
    if proof.config.detect == config.detect:
        return proof
    proof = replanned(proof, config.detect)
    store_proof(run.path, proof)
    return proof


def _opened(source: Run | FeatureSet) -> tuple[FeatureSet, pl.DataFrame]:
    """All N samples, and the table of those that have a score; they are joined by uid only."""
    if isinstance(source, FeatureSet):
        return source, source.samples
    return source.features, run_table(source)


def _proof_id(
    source: Run | FeatureSet, selections: dict[str, Selection], split: Split, config: ProveConfig
) -> str:
    """Made of all that decides the figures: what a recipe keeps may depend on a map made later."""
    kept = [
        [name, s.recipe.model_dump(mode="json", exclude_none=True), uids_digest(s.uids)]
        for name, s in selections.items()
    ]
    held_out = [split.record.source, split.record.uids_sha256]
    settings = config.model_dump(mode="json", exclude={"detect"})  # which changes no figure
    return digest([_PROOF_CODE, source.id, kept, held_out, settings])


def _proved(name: str, selection: Selection, plan: ArmPlan) -> ProvedRecipe:
    return ProvedRecipe(
        name=name,
        recipe=selection.recipe,
        kept=selection.kept,
        total=selection.total,
        trained=len(plan.recipes[name]),
        uids_sha256=uids_digest(selection.uids),
    )


def _batch_size(
    plan: ArmPlan, words: np.ndarray, config: ProveConfig
) -> tuple[int, tuple[str, ...]]:
    """One batch size for all trainings, so at most what the smallest half of an arm holds."""
    name, rows = min(plan.recipes.items(), key=lambda pair: len(pair[1]))
    half = 0
    if len(rows) >= 2 * MIN_TRAINED:
        half = smallest_half(plan, words, range(config.seed, config.seed + config.seeds))
    if half < MIN_TRAINED:
        raise ConfigError(
            f"the recipe {name} keeps too few samples to train on",
            got=f"{len(rows)} of the {len(plan.trainable)} samples that may train",
            allowed=f"at least {2 * MIN_TRAINED}, and some more where many recipes are compared",
            next_step="loosen the recipe, or hold out a smaller share",
        )
    if half >= config.batch_size:
        return config.batch_size, ()
    note = (
        f"The batch size is {half} instead of {config.batch_size} in every arm, because {name} "
        f"keeps {len(rows)} samples that may train and is also trained on halves."
    )
    return half, (note,)


def _selections(
    source: Run | FeatureSet, table: pl.DataFrame, recipes: Mapping[str, Recipe]
) -> dict[str, Selection]:
    asked = {column for one in recipes.values() for column in filters.needed_history(one)}
    history = run_history(source, sorted(asked)) if asked and isinstance(source, Run) else None
    return {name: filters.apply(recipe, table, history) for name, recipe in recipes.items()}


def _split(
    features: FeatureSet,
    table: pl.DataFrame,
    config: ProveConfig,
    held_out: pl.Series | None,
    task: Task,
    progress: Progress,
) -> Split:
    judges, judged_by = _judges(features, table, config, held_out)
    return split_pool(
        features,
        judges & task.judgeable,
        config,
        usable=task.usable,
        scored=_among(features.samples["uid"], table["uid"]),
        whole=held_out is not None,
        source=judged_by,
        check=progress.check,
    )


def _judges(
    features: FeatureSet, table: pl.DataFrame, config: ProveConfig, held_out: pl.Series | None
) -> tuple[np.ndarray, str]:
    """Which samples of the pool are known to be good, bool (N,), and who says so, in words.

    Samples without a score may judge too, so that the pool is looked at, not the run's table.
    """
    pool = _with_scores(features.samples, table)
    if held_out is not None and config.trusted is not None:
        raise ConfigError(
            "the held-out samples are named twice",
            got=config.trusted,
            allowed="a trusted column or a held-out file",
            next_step="leave one of the two away",
        )
    if held_out is not None:
        return held_out_mask(pool, held_out), f"a file of {len(held_out):,} uids"
    if config.trusted is None and config.trusted_label_column is not None:
        column = config.trusted_label_column  # who has no label there is not judgeable
        return np.ones(len(pool), bool), f"a label in {column}"
    if config.trusted is None:
        raise need_trust(pool)
    return trusted_mask(pool, config.trusted), config.trusted


def _with_scores(samples: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """All samples (N) in their order, with the table's further columns; null without a score."""
    further = [name for name in table.columns if name not in samples.columns]
    if not further:
        return samples
    scores = table.select("uid", *map(named, further))
    return samples.join(scores, on="uid", how="left", maintain_order="left")


def _among(uids: pl.Series, some: pl.Series) -> np.ndarray:
    """Which of ``uids`` (N,) are among ``some``, bool (N,)."""
    return np.asarray(uids.is_in(some.implode()).to_numpy())
