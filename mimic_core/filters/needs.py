"""What a condition looks at: columns of the table, and ensembles over the history."""

from __future__ import annotations

from mimic_core.filters.conditions import (
    Absolute,
    AllOf,
    AnyOf,
    Category,
    Condition,
    EnsembleVote,
    Minus,
    Not,
    Percentile,
    Region,
    Text,
    TopK,
    Uids,
)


def columns_of(condition: Condition) -> frozenset[str]:
    """Columns of the table that a condition looks at, ``uid`` included where it does."""
    match condition:
        case AllOf() | AnyOf():
            return frozenset().union(*(columns_of(part) for part in condition.conditions))
        case Not():
            return columns_of(condition.condition)
        case Minus():
            return columns_of(condition.keep) | columns_of(condition.drop)
        case Region():
            return frozenset(condition.columns)
        case Percentile():
            return frozenset({condition.column, condition.by or condition.column})
        case TopK():
            return frozenset({condition.column, condition.by or condition.column, "uid"})
        case Uids() | EnsembleVote():
            return frozenset({"uid"})
        case Absolute() | Category() | Text():
            return frozenset({condition.column})


def ensembles_in(condition: Condition) -> tuple[EnsembleVote, ...]:
    """All ensembles that a condition asks, in order."""
    match condition:
        case EnsembleVote():
            return (condition,)
        case AllOf() | AnyOf():
            return tuple(one for part in condition.conditions for one in ensembles_in(part))
        case Not():
            return ensembles_in(condition.condition)
        case Minus():
            return ensembles_in(condition.keep) + ensembles_in(condition.drop)
    return ()
