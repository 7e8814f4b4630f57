"""A condition as the values of a form: what the controls of the editor show and change.

A form may be unfinished (no text typed, no value picked); ``condition`` then raises an error that
says what is missing. Regions and samples chosen one by one are drawn, not typed: they have no form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mimic_core.base.errors import FilterError
from mimic_core.filters import conditions as kinds
from mimic_core.filters.conditions import Condition
from mimic_core.filters.ensembles import config as ways
from mimic_core.filters.ensembles.config import Aggregation, Binarisation, EnsembleConfig
from mimic_core.runs.history import HistoryColumn
from mimic_core.stats.cutoffs import Cutoff

Kind = Literal["percentile", "absolute", "top_k", "ensemble", "category", "text", "uid_list"]
Side = Literal["top", "lowest", "between"]
_AGGREGATIONS: dict[str, type[ways.Majority | ways.Unanimous | ways.MeanRank | ways.LabelModel]] = {
    "majority": ways.Majority,
    "unanimous": ways.Unanimous,
    "mean_rank": ways.MeanRank,
    "label_model": ways.LabelModel,
}


@dataclass(frozen=True, slots=True)
class LeafForm:
    """All that the editor can ask for; only the fields of ``kind`` count.

    Attributes:
        kind: Which condition it is.
        column: Number column of the first three kinds.
        side, percent, lower, upper: Of a percentile: the ``top`` or ``lowest`` ``percent``, or
            what lies between two percentiles.
        low, high: Ends of a range; None is open.
        k, end: Of a top-k.
        by: Column of the groups of a percentile or a top-k; None for the whole table.
        category, values: Category column and the values that are kept.
        text_column, contains, match_case: Of a text.
        file, listed: Of a list of uids: where it is, and whether its samples are kept or dropped.
        binarise, score, scope, factor, value, top_percent: How a step votes, on which score;
            ``value`` is the cutoff of a threshold where it is not ``factor``/B.
        aggregate, votes: How the votes are put together.
        min_confidence: Of an ensemble; None asks for none.
    """

    kind: Kind = "percentile"
    column: str = "mimic_score"
    side: Side = "top"
    percent: float = 30.0
    lower: float = 0.0
    upper: float = 100.0
    low: float | None = None
    high: float | None = None
    k: int | None = None
    end: Literal["largest", "smallest"] = "largest"
    by: str | None = None
    category: str | None = None
    values: tuple[bool | int | str, ...] = ()
    text_column: str = "caption"
    contains: str = ""
    match_case: bool = False
    file: str = ""
    listed: Literal["keep", "drop"] = "keep"
    binarise: str = "kmeans"
    score: HistoryColumn = "mimic_score"
    scope: Literal["epoch", "all"] = "epoch"
    factor: float = 1.0
    value: float | None = None
    top_percent: float = 50.0
    aggregate: str = "majority"
    votes: int = 1
    min_confidence: float | None = None

    def condition(self) -> Condition:
        """The condition that the form says.

        Raises:
            MimicError: Something is missing, or out of its range.
        """
        match self.kind:
            case "percentile":
                lower, upper = self._percentiles()
                ends = {"lower": lower, "upper": upper}
                return kinds.Percentile.parse({"column": self.column, **ends, "by": self.by})
            case "absolute":
                return self._absolute()
            case "top_k":
                if self.k is None:
                    raise _missing("how many to keep", "type a number of samples")
                cut = {"k": self.k, "end": self.end}
                return kinds.TopK.parse({"column": self.column, **cut, "by": self.by})
            case "ensemble":
                how = {"binarise": self.binarisation(), "aggregate": self.aggregation()}
                return kinds.EnsembleVote.parse({**how, "min_confidence": self.min_confidence})
            case "category":
                if self.category is None or not self.values:
                    raise _missing("the values to keep", "choose at least one value")
                return kinds.Category(column=self.category, values=self.values)
            case "uid_list":
                if not self.file:
                    raise _missing("which file lists the uids", "upload one, or type its path")
                return kinds.UidList.parse({"file": self.file, "listed": self.listed})
        if not self.contains:
            raise _missing("the text to look for", "type a word of the captions to keep")
        return kinds.Text(
            column=self.text_column, contains=self.contains, match_case=self.match_case
        )

    def _percentiles(self) -> tuple[float, float]:
        if self.side == "between":
            return min(self.lower, self.upper), max(self.lower, self.upper)
        if self.side == "lowest":
            return 0.0, self.percent
        return round(100 - self.percent, 9), 100.0  # 100 - 29.9 is 70.1, not 70.10000000000001

    def _absolute(self) -> kinds.Absolute:
        low, high = self.low, self.high
        if low is None and high is None:
            raise _missing("an end of the range", "type the lowest or the highest value to keep")
        if low is not None and high is not None and low > high:
            low, high = high, low
        return kinds.Absolute.parse({"column": self.column, "min": low, "max": high})

    def ensemble_config(self) -> EnsembleConfig:
        """How the steps vote and what is made of the votes. Raises like ``condition``."""
        return EnsembleConfig(binarise=self.binarisation(), aggregate=self.aggregation())

    def binarisation(self) -> Binarisation:
        """How a step votes. Raises like ``condition``."""
        on: dict[str, Any] = {"column": self.score, "scope": self.scope}
        match self.binarise:
            case "kmeans":
                return ways.KMeans(**on)
            case "gmm":
                return ways.GaussianMixture(**on)
            case "top_percent":
                return ways.TopPercent.parse({**on, "percent": self.top_percent})
        if self.score == "mimic_weight" and self.value is None:
            factor = None if self.factor == 1 else self.factor
            return ways.Threshold.parse({"column": self.score, "factor": factor})
        if self.value is None:
            raise _missing("the score to cut at", "type a cutoff")
        return ways.Threshold.parse({"column": self.score, "value": self.value})

    def aggregation(self) -> Aggregation:
        """How the votes are put together. Raises like ``condition``."""
        if self.aggregate == "at_least":
            return ways.AtLeast.parse({"votes": self.votes})
        return _AGGREGATIONS[self.aggregate]()


def form_of(condition: Condition) -> LeafForm | None:
    """The form that says ``condition``; None for what has no form."""
    match condition:
        case kinds.Percentile(column=column, lower=lower, upper=upper, by=by):
            if upper == 100:
                return LeafForm(column=column, percent=round(100 - lower, 9), by=by)
            if lower == 0:
                return LeafForm(column=column, side="lowest", percent=upper, by=by)
            return LeafForm(column=column, side="between", lower=lower, upper=upper, by=by)
        case kinds.Absolute(column=column):
            return LeafForm("absolute", column, low=condition.min, high=condition.max)
        case kinds.TopK(column=column, k=k, end=end, by=by):
            return LeafForm("top_k", column, k=k, end=end, by=by)
        case kinds.Category(column=column, values=values):
            return LeafForm("category", category=column, values=values)
        case kinds.Text(column=column, contains=contains, match_case=match_case):
            return LeafForm("text", text_column=column, contains=contains, match_case=match_case)
        case kinds.UidList(file=file, listed=listed):
            return LeafForm("uid_list", file=file, listed=listed)
        case kinds.EnsembleVote():
            return ensemble_form(condition)
    return None


def ensemble_form(condition: kinds.EnsembleVote) -> LeafForm:
    """The form that says an ensemble."""
    voter, together = condition.binarise, condition.aggregate
    form = LeafForm(
        "ensemble",
        binarise=voter.kind,
        score=voter.column,
        scope=voter.scope,
        aggregate=together.kind,
        min_confidence=condition.min_confidence,
    )
    if isinstance(voter, ways.Threshold):
        form = replace(form, scope="epoch", value=voter.value, factor=voter.factor or 1.0)
    if isinstance(voter, ways.TopPercent):
        form = replace(form, top_percent=voter.percent)
    return replace(form, votes=together.votes) if isinstance(together, ways.AtLeast) else form


def votes_by(form: LeafForm, kind: str) -> dict[str, str]:
    """What changes in the form when the steps are to vote by ``kind``.

    A fixed cutoff starts as 1/B, which is a mimic weight; the others start from the score.
    """
    if "threshold" not in (kind, form.binarise) or form.value is not None:
        return {"binarise": kind}
    return {"binarise": kind, "score": "mimic_weight" if kind == "threshold" else "mimic_score"}


def as_kind(form: LeafForm, kind: Kind, values: np.ndarray) -> LeafForm:
    """The form turned into another kind; a cutoff stays at its place on the scale.

    Args:
        form: The form as it is.
        kind: What it becomes.
        values: The column (N,) in ascending order.
    """
    cut = _cutoff(form, values)
    form = replace(form, kind=kind)
    if cut is None:
        if kind == "top_k" and form.k is None:
            return replace(form, k=max(1, len(values) // 2))
        return form
    high = cut.keep == "high"
    match kind:
        case "absolute":
            ends = (cut.score, None) if high else (None, cut.score)
            return replace(form, low=ends[0], high=ends[1])
        case "top_k":
            return replace(form, k=max(1, cut.kept), end="largest" if high else "smallest")
        case "percentile":
            percent = 100 - cut.percentile if high else cut.percentile
            side: Side = "top" if high else "lowest"
            return replace(form, side=side, percent=round(percent, 9))
    return form


def _cutoff(form: LeafForm, values: np.ndarray) -> Cutoff | None:
    """Where a one-sided condition on a number column cuts."""
    if not len(values) or form.by is not None:
        return None
    match form.kind:
        case "percentile" if form.side == "top":
            return Cutoff.from_percentile(values, round(100 - form.percent, 9), keep="high")
        case "percentile" if form.side == "lowest":
            return Cutoff.from_percentile(values, form.percent, keep="low")
        case "top_k" if form.k is not None:
            keep: Literal["high", "low"] = "high" if form.end == "largest" else "low"
            return Cutoff.from_kept(values, min(form.k, len(values)), keep=keep)
        case "absolute" if form.low is not None and form.high is None:
            return Cutoff.from_score(values, form.low, keep="high")
        case "absolute" if form.high is not None and form.low is None:
            return Cutoff.from_score(values, form.high, keep="low")
    return None


def _missing(what: str, next_step: str) -> FilterError:
    return FilterError(f"the condition does not say yet {what}", next_step=next_step)
