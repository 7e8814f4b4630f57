"""What ``run.json`` says about the reference head of a labelled run."""

from __future__ import annotations

from typing import Literal

from mimic_core.base.frozen import Frozen

HeadOrigin = Literal["file", "trusted", "zero_shot", "checkpoint"]


class HeadRecord(Frozen):
    """The reference head of a labelled run: where it is from, and how good it is on the pool.

    ``accuracy`` is the share of the ``scored`` samples whose label it predicts, whether or not the
    labels are right. ``disjoint`` says that no sample it was trained on was scored, as far as
    Mimicscope has trained it; ``trusted_held_out`` more were trusted, but are held out.
    ``converged`` is false where the training of the head has not come to its end.
    """

    origin: HeadOrigin
    classes: int
    scored: int
    accuracy: float
    prompts: tuple[str, ...] = ()
    trusted: int = 0
    trusted_held_out: int = 0
    trusted_accuracy: float | None = None
    disjoint: bool = True
    converged: bool = True

    def as_sentence(self) -> str:
        """The same for people."""
        origin = {
            "file": "read from a file",
            "trusted": f"trained on {self.trusted:,} trusted samples",
            "zero_shot": f"zero-shot from {', '.join(map(repr, self.prompts))}",
            "checkpoint": "the reference checkpoint's own classifier",
        }[self.origin]
        left = f", {self.trusted_held_out:,} more are held out" if self.trusted_held_out else ""
        scored = "" if self.disjoint else ", which are scored too"
        ended = "" if self.converged else ", stopped by its limit before it had converged"
        return (
            f"{origin}{left}{scored}{ended}; {self.classes} classes; agrees with "
            f"{self.accuracy:.1%} of the {self.scored:,} scored labels"
        )
