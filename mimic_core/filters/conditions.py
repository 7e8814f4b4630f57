"""The conditions that recipes are made of: what each asks for, and how it reads on screen.

A condition is a frozen tree that prints to YAML and back; ``mimic_core.filters.votes`` evaluates
it. Build one from unchecked values with ``.parse``, which raises an error a person can act on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import (
    Field,
    FiniteFloat,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from mimic_core.base.config import Frozen
from mimic_core.filters.ensembles.config import (
    Aggregation,
    Binarisation,
    EnsembleConfig,
    KMeans,
    Majority,
)

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Point = tuple[FiniteFloat, FiniteFloat]
_SHOWN_VALUES = 3


class _Condition(Frozen):
    """Common to all: what a condition looks at."""

    def parts(self) -> tuple[_Condition, ...]:
        """The conditions that it joins, in order; none for a leaf."""
        fields = (one if isinstance(one, tuple) else (one,) for _, one in self)
        return tuple(part for field in fields for part in field if isinstance(part, _Condition))

    def columns_read(self) -> frozenset[str]:
        """Columns of the table that it looks at, ``uid`` included where it does."""
        own = {name for field, name in self if field in ("column", "by") and name is not None}
        return frozenset(own).union(*(part.columns_read() for part in self.parts()))

    def ensembles(self) -> tuple[EnsembleVote, ...]:
        """All ensembles that it asks, in order."""
        return tuple(one for part in self.parts() for one in part.ensembles())


class Absolute(_Condition):
    """Numbers from ``min`` to ``max``, both inclusive; None leaves that end open."""

    kind: Literal["absolute"] = "absolute"
    column: str
    min: FiniteFloat | None = None
    max: FiniteFloat | None = None

    @model_validator(mode="after")
    def _some_range(self) -> Absolute:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def describe(self) -> str:
        """Such as ``mimic score >= 0.012``."""
        name = _spoken(self.column)
        if self.max is None:
            return f"{name} >= {_number(self.min)}"
        if self.min is None:
            return f"{name} <= {_number(self.max)}"
        return f"{_number(self.min)} <= {name} <= {_number(self.max)}"


class Percentile(_Condition):
    """Numbers between two percentiles of the column's non-null values in the whole table.

    Drops the lowest ``lower`` percent and the highest ``100 - upper`` percent. Equal values stay
    together, and stay in when the cut falls among them (``mimic_core.stats.cutoffs``). With
    ``by``, in each group of rows that share a value of that column; a row without one is in no
    group.
    """

    kind: Literal["percentile"] = "percentile"
    column: str
    lower: Percent = 0.0
    upper: Percent = 100.0
    by: str | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Percentile:
        if self.lower > self.upper:
            raise ValueError(f"lower {self.lower} is above upper {self.upper}")
        return self

    def describe(self) -> str:
        """Such as ``mimic score: top 30 %``."""
        name, each = _spoken(self.column), _each(self.by)
        if self.upper == 100:
            return f"{name}: top {_number(100 - self.lower)} %{each}"
        if self.lower == 0:
            return f"{name}: lowest {_number(self.upper)} %{each}"
        return f"{name}: percentile {_number(self.lower)} to {_number(self.upper)}{each}"


class TopK(_Condition):
    """Exactly the ``k`` largest (or smallest) numbers, all of them when there are fewer.

    Ties at the edge are broken by uid, the smaller first. With ``by``, k in each group of rows
    that share a value of that column; a row without one is in no group.
    """

    kind: Literal["top_k"] = "top_k"
    column: str
    k: int = Field(ge=1)
    end: Literal["largest", "smallest"] = "largest"
    by: str | None = None

    def columns_read(self) -> frozenset[str]:
        """The columns, and the uids that break ties."""
        return super().columns_read() | {"uid"}

    def describe(self) -> str:
        """Such as ``1,000 largest by mimic score``."""
        return f"{self.k:,} {self.end} by {_spoken(self.column)}{_each(self.by)}"


class Category(_Condition):
    """Rows whose text, boolean or integer column holds one of ``values``."""

    kind: Literal["category"] = "category"
    column: str
    values: tuple[StrictBool | StrictInt | StrictStr, ...] = Field(min_length=1)

    def describe(self) -> str:
        """Such as ``topic is cat or dog``."""
        shown = [str(value) for value in self.values[:_SHOWN_VALUES]]
        more = len(self.values) - len(shown)
        if more:
            shown.append(f"{more:,} more")
        return f"{_spoken(self.column)} is {' or '.join(shown)}"


class Text(_Condition):
    """Rows whose text contains ``contains``, as it stands (no pattern)."""

    kind: Literal["text"] = "text"
    column: str = "caption"
    contains: str = Field(min_length=1)
    match_case: bool = False

    def describe(self) -> str:
        """Such as ``caption contains "dog"``."""
        case = " (exact case)" if self.match_case else ""
        return f'{_spoken(self.column)} contains "{self.contains}"{case}'


class Region(_Condition):
    """Points inside a polygon over two numeric columns: a lasso that can be replayed.

    Even-odd rule, so a part enclosed twice is outside; ``mimic_core.filters.polygon`` says what
    holds on the border. The last corner joins the first.
    """

    kind: Literal["region"] = "region"
    columns: tuple[str, str] = ("map_x", "map_y")
    polygon: tuple[Point, ...] = Field(min_length=3)

    @classmethod
    def box(
        cls,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        columns: tuple[str, str] = ("map_x", "map_y"),
    ) -> Region:
        """The rectangle between two x and two y, border included."""
        corners = ((x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]))
        return cls.parse({"columns": columns, "polygon": corners})

    def columns_read(self) -> frozenset[str]:
        """The two columns."""
        return frozenset(self.columns)

    def describe(self) -> str:
        """Such as ``map: inside lasso (5 points)``."""
        on_map = self.columns == ("map_x", "map_y")
        where = "map" if on_map else " and ".join(_spoken(name) for name in self.columns)
        if self._is_box():
            return f"{where}: inside box"
        return f"{where}: inside lasso ({len(self.polygon):,} points)"

    def _is_box(self) -> bool:
        xs, ys = ({point[axis] for point in self.polygon} for axis in (0, 1))
        corners = {(x, y) for x in xs for y in ys}
        return len(self.polygon) == 4 and len(corners) == 4 and corners == set(self.polygon)


class Uids(_Condition):
    """An explicit set of samples; stored sorted, each once. All of them must be in the table."""

    kind: Literal["uids"] = "uids"
    uids: tuple[str, ...]

    @field_validator("uids")
    @classmethod
    def _as_set(cls, uids: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(uids)))

    def columns_read(self) -> frozenset[str]:
        """The uids alone."""
        return frozenset({"uid"})

    def describe(self) -> str:
        """Such as ``12 chosen samples``."""
        return f"{len(self.uids):,} chosen sample{'' if len(self.uids) == 1 else 's'}"


class UidList(_Condition):
    """The samples that a file lists by uid, or all but those (``mimic_core.filters.uid_lists``).

    The file may list others too, such as a subset that was chosen from a larger pool. In a recipe's
    own file its path may be relative to that. With ``sha256``, only a file of just that content is
    read; manifests say it.
    """

    kind: Literal["uid_list"] = "uid_list"
    file: str = Field(min_length=1)
    listed: Literal["keep", "drop"] = "keep"
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @field_validator("file")
    @classmethod
    def _a_path(cls, file: str) -> str:
        if "\0" in file:
            raise ValueError("no file can have a zero byte in its name")
        return file

    def columns_read(self) -> frozenset[str]:
        """The uids alone."""
        return frozenset({"uid"})

    def describe(self) -> str:
        """Such as ``listed in subset.npy``."""
        name = PurePath(self.file).name
        return f"listed in {name}" if self.listed == "keep" else f"not listed in {name}"


class EnsembleVote(_Condition):
    """Samples that the steps of the run keep together (``mimic_core.filters.ensembles.ensemble``).

    Evaluated on the whole history of the run, whatever rows the table holds. ``min_confidence``
    asks for that confidence on top; it never keeps what the ensemble drops.
    """

    kind: Literal["ensemble"] = "ensemble"
    binarise: Binarisation = KMeans()
    aggregate: Aggregation = Majority()
    min_confidence: float | None = Field(default=None, ge=0, le=1)

    @property
    def config(self) -> EnsembleConfig:
        """The ensemble filter that is asked."""
        return EnsembleConfig(binarise=self.binarise, aggregate=self.aggregate)

    def columns_read(self) -> frozenset[str]:
        """The uids alone."""
        return frozenset({"uid"})

    def ensembles(self) -> tuple[EnsembleVote, ...]:
        """Itself."""
        return (self,)

    def describe(self) -> str:
        """Such as ``majority of mimic score: k-means``."""
        sure = self.min_confidence
        more = "" if sure is None else f", confidence >= {_number(sure)}"
        return f"{self.config.describe()}{more}"


class AllOf(_Condition):
    """Rows that every condition keeps."""

    kind: Literal["all"] = "all"
    conditions: tuple[Condition, ...] = Field(min_length=1)

    def describe(self) -> str:
        """The conditions joined by ``and``."""
        return " and ".join(_nested(condition) for condition in self.conditions)


class AnyOf(_Condition):
    """Rows that at least one condition keeps."""

    kind: Literal["any"] = "any"
    conditions: tuple[Condition, ...] = Field(min_length=1)

    def describe(self) -> str:
        """The conditions joined by ``or``."""
        return " or ".join(_nested(condition) for condition in self.conditions)


class Not(_Condition):
    """Rows that the condition rejects; a row whose value is missing is still not kept."""

    kind: Literal["not"] = "not"
    condition: Condition

    def describe(self) -> str:
        """Such as ``not (mimic score >= 0.012)``."""
        return f"not ({self.condition.describe()})"


class Minus(_Condition):
    """Rows that ``keep`` keeps without those that ``drop`` keeps: ``keep`` and not ``drop``."""

    kind: Literal["minus"] = "minus"
    keep: Condition
    drop: Condition

    def describe(self) -> str:
        """Such as ``clip score: top 30 % minus mimic score: lowest 15 %``."""
        return f"{_nested(self.keep)} minus {_nested(self.drop)}"


Leaf = Absolute | Percentile | TopK | Category | Text | Region | Uids | UidList | EnsembleVote
Condition = Annotated[Leaf | AllOf | AnyOf | Not | Minus, Field(discriminator="kind")]

for _model in (AllOf, AnyOf, Not, Minus):
    _model.model_rebuild()


def with_leaves(condition: Condition, change: Callable[[Leaf], Leaf]) -> Condition:
    """A tree with each of its leaves changed."""
    match condition:
        case AllOf() | AnyOf():
            parts = tuple(with_leaves(part, change) for part in condition.conditions)
            return condition.model_copy(update={"conditions": parts})
        case Not():
            part = with_leaves(condition.condition, change)
            return condition.model_copy(update={"condition": part})
        case Minus():
            keep, drop = (with_leaves(part, change) for part in (condition.keep, condition.drop))
            return condition.model_copy(update={"keep": keep, "drop": drop})
    return change(condition)


def _nested(condition: Condition) -> str:
    text = condition.describe()
    return f"({text})" if isinstance(condition, AllOf | AnyOf | Minus) else text


def _spoken(column: str) -> str:
    return {"clip_score": "CLIP score"}.get(column, column.replace("_", " "))


def _each(by: str | None) -> str:
    return "" if by is None else f" in each {_spoken(by)}"


def _number(value: float | None) -> str:
    return f"{value:.6g}"
