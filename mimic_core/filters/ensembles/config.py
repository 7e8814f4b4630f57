"""What an ensemble filter is made of: how steps become votes, and votes a decision.

Frozen trees that print to YAML and back; ``mimic_core.filters.ensembles.ensemble`` carries
them out.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from mimic_core.base.config import Frozen

Column = Literal["mimic_score", "mimic_weight", "loss"]
Scope = Literal["epoch", "all"]


class _Binarisation(Frozen):
    """Common to all: which score of a step votes, and what it is compared with.

    ``column``: mimic score and mimic weight vote "keep" where they are high, the loss where it is
    low. ``scope``: a cutoff for each step ("epoch"), or one from the values of all steps ("all").
    """

    column: Column = "mimic_score"
    scope: Scope = "epoch"

    def _on(self, what: str) -> str:
        whole = "" if self.scope == "epoch" else " over all epochs"
        return f"{self.column.replace('_', ' ')}: {what}{whole}"


class Threshold(_Binarisation):
    """A fixed cutoff: ``factor`` times the neutral mimic weight 1/B, or a ``value`` of any column.

    Scores equal to the cutoff are kept. ``scope`` makes no difference.
    """

    kind: Literal["threshold"] = "threshold"
    column: Column = "mimic_weight"
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    value: FiniteFloat | None = None

    @model_validator(mode="after")
    def _one_cutoff(self) -> Threshold:
        if self.value is not None and self.factor is not None:
            raise ValueError("give value or factor, not both")
        if self.value is None and self.column != "mimic_weight":
            raise ValueError(
                f"1/B is a mimic weight: to cut the {self.column}, give the value to cut it at"
            )
        return self

    def describe(self) -> str:
        """Such as ``mimic weight: >= 1/B``."""
        sign = "<=" if self.column == "loss" else ">="
        if self.value is not None:
            return self._on(f"{sign} {self.value:.6g}")
        factor = "1" if self.factor is None else f"{self.factor:.6g}"
        return self._on(f"{sign} {factor}/B")


class KMeans(_Binarisation):
    """The better of two clusters: exact 1-D k-means with k = 2."""

    kind: Literal["kmeans"] = "kmeans"

    def describe(self) -> str:
        """Such as ``mimic score: k-means``."""
        return self._on("k-means")


class GaussianMixture(_Binarisation):
    """From where on the better of two normal components is the likelier one.

    The rule is monotone: the cutoff is the crossing of the two posteriors next below the better
    mean, so a wide lower component never claims the top of the scores. Where the posteriors do not
    cross, nothing tells two sides apart and all are kept.
    """

    kind: Literal["gmm"] = "gmm"

    def describe(self) -> str:
        """Such as ``mimic score: two normal components``."""
        return self._on("two normal components")


class TopPercent(_Binarisation):
    """The best ``percent`` of the values; ties with the last one stay in."""

    kind: Literal["top_percent"] = "top_percent"
    percent: float = Field(ge=0, le=100, allow_inf_nan=False)

    def describe(self) -> str:
        """Such as ``mimic score: top 30 %``."""
        return self._on(f"top {self.percent:.6g} %")


class _Aggregation(Frozen):
    """Common to all: how the votes of the steps are put together."""

    kind: str

    def describe(self) -> str:
        """In a few words."""
        return self.kind.replace("_", " ")


class Majority(_Aggregation):
    """Keep what more than half of the steps keep; a tie drops."""

    kind: Literal["majority"] = "majority"


class AtLeast(_Aggregation):
    """Keep what at least ``votes`` of the steps keep."""

    kind: Literal["at_least"] = "at_least"
    votes: int = Field(ge=1)

    def describe(self) -> str:
        """Such as ``at least 3 votes``."""
        return f"at least {self.votes} vote{'' if self.votes == 1 else 's'}"


class Unanimous(_Aggregation):
    """Keep what every step keeps."""

    kind: Literal["unanimous"] = "unanimous"


class MeanRank(_Aggregation):
    """Keep the best by mean rank over the steps, as many as the steps keep on average.

    Ties at the edge are broken by uid, the smaller first.
    """

    kind: Literal["mean_rank"] = "mean_rank"


class LabelModel(_Aggregation):
    """Weigh the steps by how reliable their votes show them to be (Dawid and Skene's model).

    Needs at least three steps.
    """

    kind: Literal["label_model"] = "label_model"


Binarisation = Annotated[
    Threshold | KMeans | GaussianMixture | TopPercent, Field(discriminator="kind")
]
Aggregation = Annotated[
    Majority | AtLeast | Unanimous | MeanRank | LabelModel, Field(discriminator="kind")
]


class EnsembleConfig(Frozen):
    """An ensemble filter: how each step votes, and how the votes are put together."""

    binarise: Binarisation = KMeans()
    aggregate: Aggregation = Majority()

    def describe(self) -> str:
        """Such as ``majority of mimic score: k-means``."""
        return f"{self.aggregate.describe()} of {self.binarise.describe()}"
