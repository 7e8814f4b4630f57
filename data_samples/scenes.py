"""What a demo picture shows: a small, fully known description from which all else follows.

The picture (render.py), its caption (captions.py) and the metadata are three readings of one
`Scene`, so the recorded truth cannot drift from what was drawn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data_samples.objects import Thing

Pattern = Literal["plain", "gradient", "striped", "checkered", "dotted", "bokeh", "paper", "rays"]
PATTERNS: tuple[Pattern, ...] = (
    "plain", "gradient", "striped", "checkered", "dotted", "bokeh", "paper", "rays",
)  # fmt: skip
PATTERN_WEIGHTS = (4, 5, 3, 2, 3, 3, 3, 2)

RGB = tuple[int, int, int]
COLOURS: dict[str, RGB] = {
    "red": (214, 64, 61), "orange": (243, 146, 55), "yellow": (250, 212, 82),
    "lime": (178, 214, 76), "green": (76, 160, 88), "mint": (166, 226, 200),
    "teal": (42, 140, 144), "sky-blue": (138, 202, 240), "blue": (58, 104, 204),
    "navy": (32, 44, 92), "purple": (120, 74, 168), "lavender": (202, 186, 236),
    "pink": (246, 160, 190), "brown": (130, 90, 62), "cream": (248, 236, 208),
    "grey": (158, 162, 170), "black": (34, 34, 40), "white": (250, 250, 250),
}  # fmt: skip

Size = Literal["small", "medium", "big"]
Position = Literal[
    "centre", "left", "right", "top", "bottom",
    "top left", "top right", "bottom left", "bottom right",
]  # fmt: skip
POSITIONS: dict[Position, tuple[float, float]] = {
    "centre": (0.5, 0.5), "left": (0.28, 0.5), "right": (0.72, 0.5),
    "top": (0.5, 0.28), "bottom": (0.5, 0.72),
    "top left": (0.28, 0.28), "top right": (0.72, 0.28),
    "bottom left": (0.28, 0.72), "bottom right": (0.72, 0.72),
}  # fmt: skip
SCALES: dict[Size, tuple[float, float]] = {
    "small": (0.4, 0.48), "medium": (0.54, 0.66), "big": (0.78, 0.94),
}  # fmt: skip
# Width and height in pixels. Mild aspect ratios only: the reference squashes to a square.
CANVASES = ((120, 120), (112, 112), (128, 128), (128, 104), (104, 128), (136, 108), (108, 136))
CANVAS_WEIGHTS = (6, 3, 3, 2, 2, 2, 2)

# Centres of two or three things, as fractions of width and height.
PAIR_LAYOUTS = (
    ((0.27, 0.5), (0.73, 0.5)),
    ((0.5, 0.27), (0.5, 0.73)),
    ((0.3, 0.32), (0.7, 0.68)),
    ((0.3, 0.68), (0.7, 0.32)),
)
TRIPLE_LAYOUTS = (
    ((0.5, 0.27), (0.26, 0.72), (0.74, 0.72)),
    ((0.26, 0.28), (0.74, 0.28), (0.5, 0.73)),
    ((0.2, 0.5), (0.5, 0.5), (0.8, 0.5)),
)


@dataclass(frozen=True, slots=True)
class Placement:
    """One thing on the canvas: centre and scale as fractions, angle in degrees."""

    thing: Thing
    x: float
    y: float
    scale: float
    angle: float


@dataclass(frozen=True, slots=True)
class Background:
    """The backdrop; `colour` is the one that captions name, `seed` fixes its texture."""

    pattern: Pattern
    colour: str
    second_colour: str | None
    angle: float
    seed: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is drawn; `size` and `position` are given for a single thing only."""

    width: int
    height: int
    placements: tuple[Placement, ...]
    background: Background
    size: Size | None
    position: Position | None
    shadow: bool

    @property
    def things(self) -> tuple[Thing, ...]:
        """The distinct things shown, the main one first."""
        return tuple(dict.fromkeys(placement.thing for placement in self.placements))

    @property
    def count(self) -> int:
        """How many copies of the main thing are shown."""
        return sum(placement.thing == self.things[0] for placement in self.placements)


def draw_scene(main: Thing, others: Sequence[Thing], rng: random.Random) -> Scene:
    """Draw a random scene around one main thing.

    Args:
        main: The thing that the picture is about.
        others: Candidates for a second, different thing.
        rng: Source of every random choice.
    """
    width, height = rng.choices(CANVASES, CANVAS_WEIGHTS)[0]
    kind = rng.choices(("single", "several", "pair"), (66, 19, 15))[0]
    size: Size | None = None
    position: Position | None = None
    if kind == "single":
        size, position, placements = _single(main, rng)
    elif kind == "several":
        placements = _group([main] * rng.choice((2, 2, 3)), rng)
    else:
        partner = rng.choice([thing for thing in others if thing != main])
        placements = _group([main, partner], rng)
    return Scene(
        width=width,
        height=height,
        placements=placements,
        background=_background(rng),
        size=size,
        position=position,
        shadow=rng.random() < 0.6,
    )


def _single(main: Thing, rng: random.Random) -> tuple[Size, Position, tuple[Placement, ...]]:
    size: Size = rng.choices(("small", "medium", "big"), (2, 4, 6))[0]
    # A big thing has no room to be anywhere but in the middle.
    position: Position = "centre" if size == "big" else rng.choice(tuple(POSITIONS))
    x, y = POSITIONS[position]
    return size, position, (_place(main, (x, y), SCALES[size], rng),)


def _group(things: Sequence[Thing], rng: random.Random) -> tuple[Placement, ...]:
    layout: Sequence[tuple[float, float]]
    if len(things) == 2:
        layout, scales = rng.choice(PAIR_LAYOUTS), (0.46, 0.55)
    else:
        layout, scales = rng.choice(TRIPLE_LAYOUTS), (0.36, 0.44)
    return tuple(
        _place(thing, centre, scales, rng) for thing, centre in zip(things, layout, strict=True)
    )


def _place(
    thing: Thing, centre: tuple[float, float], scales: tuple[float, float], rng: random.Random
) -> Placement:
    return Placement(
        thing=thing,
        x=centre[0] + rng.uniform(-0.03, 0.03),
        y=centre[1] + rng.uniform(-0.03, 0.03),
        scale=rng.uniform(*scales),
        angle=rng.uniform(-15.0, 15.0),
    )


def _background(rng: random.Random) -> Background:
    pattern = rng.choices(PATTERNS, PATTERN_WEIGHTS)[0]
    colour, second = rng.sample(sorted(COLOURS), 2)
    two_named = pattern in ("gradient", "striped", "checkered") and rng.random() < 0.4
    return Background(
        pattern=pattern,
        colour=colour,
        second_colour=second if two_named else None,
        angle=rng.uniform(0.0, 360.0),
        seed=rng.randrange(2**31),
    )
