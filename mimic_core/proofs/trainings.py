"""All trainings of a proof, a few at a time.

One training is small, so several threads inside it would mostly wait for each other: each runs on
one thread of its own instead, and as many run at once as there are cores. A training's result
depends neither on that number nor on what runs beside it.

Letters: M metrics, S seeds, H held-out samples.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from statistics import fmean
from threading import Event

import numpy as np
import torch

from mimic_core.base.errors import Interrupted
from mimic_core.base.progress import Progress
from mimic_core.proofs.arms import ArmPlan, seed_rows, split_halves
from mimic_core.proofs.intervals import Trained
from mimic_core.proofs.power import curve_steps
from mimic_core.proofs.settings import ProveConfig
from mimic_core.proofs.tasks import Layer, Task

MAX_WORKERS = 8
_LOOK_SECONDS = 0.2  # how long a wish to stop may wait
_Key = tuple[int, bytes]
_Judged = tuple[np.ndarray, dict[int, float]]  # contributions, and the loss at earlier steps


def train_arms(
    plan: ArmPlan,
    words: np.ndarray,
    held_out: np.ndarray,
    task: Task,
    config: ProveConfig,
    *,
    batch_size: int,
    progress: Progress,
    workers: int | None = None,
) -> dict[str, Trained]:
    """Three trainings of every arm and seed: on all its samples, and on two halves.

    Args:
        words: Parsed uids (N, 2) of the pool.
        held_out: Rows (H,) that judge.
        workers: Trainings at a time; None takes one per core, 1 where the task is on a GPU.
    """
    sums: dict[str, np.ndarray] = {}
    curves: dict[str, list[dict[int, float]]] = {name: [] for name in plan.names}
    looked_at = curve_steps(config.steps)
    halves: dict[str, list[list[np.ndarray]]] = {name: [] for name in plan.names}
    progress.phase("trainings", 3 * config.seeds * len(plan.names), unit="trainings")

    def one(key: _Key, stopped: Event) -> _Judged:
        rows = np.frombuffer(key[1], np.int64)
        curve: dict[int, float] = {}

        def check() -> None:
            if stopped.is_set():
                raise Interrupted("another training was stopped")

        def look(done: int, layer: Layer) -> None:
            if done in looked_at[:-1]:
                curve[done] = task.loss(layer, held_out)

        model = task.fit(
            rows,
            seed=key[0],
            steps=config.steps,
            batch_size=batch_size,
            check=check,
            look=None if key[0] % 3 else look,  # the halves show the same course, only coarser
        )
        contributions = task.contributions(model, held_out)
        return contributions, curve | {config.steps: float(contributions[0].mean())}

    for seed in range(config.seed, config.seed + config.seeds):
        rows = seed_rows(plan, words, seed)
        parts = split_halves(rows, words, seed)
        # The whole and the halves start and shuffle differently; arms that are equal train once.
        keys = {
            name: [
                (3 * seed + number, part.tobytes())
                for number, part in enumerate((rows[name], *parts[name]))
            ]
            for name in plan.names
        }
        distinct = list(dict.fromkeys(key for some in keys.values() for key in some))
        progress.advance(3 * len(plan.names) - len(distinct))
        done = _at_once(one, distinct, progress, _workers(workers, task))
        for name, (whole, *two) in keys.items():
            contributions, curve = done[whole]
            sums[name] = sums.get(name, np.zeros_like(contributions)) + contributions
            curves[name].append(curve)
            halves[name].append([done[half][0].mean(1) for half in two])
    return {
        name: Trained(
            sums[name] / config.seeds,
            np.moveaxis(np.array(halves[name]), 2, 0),
            {at: fmean(one[at] for one in curves[name]) for at in curves[name][0]},
        )
        for name in plan.names
    }


def _workers(wanted: int | None, task: Task) -> int:
    if task.device.type != "cpu":
        return 1
    return wanted or min(MAX_WORKERS, os.cpu_count() or 1)


def _at_once(
    work: Callable[[_Key, Event], _Judged],
    keys: Sequence[_Key],
    progress: Progress,
    workers: int,
) -> Mapping[_Key, _Judged]:
    """``work`` of every key; the first failure, or a wish to stop, ends all of them."""
    stopped = Event()
    with _one_thread_each(), ThreadPoolExecutor(workers, "training") as pool:
        futures = {pool.submit(work, key, stopped): key for key in keys}
        try:
            pending: set[Future[_Judged]] = set(futures)
            while pending:
                progress.check()
                done, pending = wait(pending, _LOOK_SECONDS, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                progress.advance(len(done))
        except BaseException:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        return {key: future.result() for future, key in futures.items()}


@contextmanager
def _one_thread_each() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
