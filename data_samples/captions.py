"""Write captions for scenes, in the many voices of alt texts found on the web."""

from __future__ import annotations

import random
from typing import Literal

from data_samples.objects import Thing, plural, with_article
from data_samples.scenes import Background, Scene

NUMBER_WORDS = {1: "one", 2: "two", 3: "three"}
Detail = Literal["bare", "background", "position", "full"]
DETAIL_WEIGHTS: dict[Detail, int] = {"bare": 25, "background": 40, "position": 12, "full": 23}

# Wrappers around one finished description {d}. Most captions are left as they are.
WRAPPERS = (
    "{d}", "{d}", "{d}", "{d}", "{d}.", "a picture of {d}", "a photo of {d}", "an image of {d}",
    "an illustration of {d}", "a drawing of {d}", "close-up: {d}", "my favourite sticker: {d}",
    "{d}, clip art", "{d} - stock illustration", "{d} | free icon", "cute picture showing {d}",
    "this is {d}", "here we see {d}", "sticker of {d}", "emoji art: {d}", "look, {d}!",
    "{d} (digital art)", "new in the shop: {d}", "greeting card with {d}", "only {d}",
)  # fmt: skip

PATTERN_PHRASES: dict[str, tuple[str, ...]] = {
    "plain": ("on a {c} background", "against a {c} wall", "on plain {c}", "on a {c} backdrop"),
    "gradient": ("on a {c} gradient", "in front of a soft {c} gradient", "on a {c} background"),
    "striped": ("on {c} stripes", "on a striped {c} background", "with {c} stripes behind"),
    "checkered": ("on a {c} checkered cloth", "on {c} checks", "over a {c} checkerboard"),
    "dotted": ("on {c} polka dots", "on a dotted {c} background", "with {c} dots behind"),
    "bokeh": ("with {c} bokeh lights", "on a blurry {c} background", "among {c} bubbles"),
    "paper": ("on {c} paper", "on a cloudy {c} background", "on textured {c} paper"),
    "rays": ("in front of {c} rays", "on a {c} sunburst", "with {c} rays behind"),
}
POSITION_PHRASES: dict[str, tuple[str, ...]] = {
    "centre": ("in the centre", "in the middle"),
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top", "near the top"),
    "bottom": ("at the bottom", "near the bottom"),
    "top left": ("in the top left corner", "top left"),
    "top right": ("in the top right corner", "top right"),
    "bottom left": ("in the bottom left corner", "bottom left"),
    "bottom right": ("in the bottom right corner", "bottom right"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "tiny", "little"),
    "medium": ("",),
    "big": ("big", "large", "huge"),
}


def write_caption(scene: Scene, rng: random.Random, detail: Detail | None = None) -> str:
    """Write one caption that is true of the scene.

    Args:
        scene: What the picture shows.
        rng: Source of the choice of words.
        detail: How much to tell; drawn at random when left out. The things and their number are
            always told.
    """
    if detail is None:
        detail = rng.choices(tuple(DETAIL_WEIGHTS), tuple(DETAIL_WEIGHTS.values()))[0]
    parts = [subject(scene, rng, with_size=detail in ("position", "full"))]
    if detail in ("position", "full") and scene.position is not None:
        parts.append(rng.choice(POSITION_PHRASES[scene.position]))
    if detail in ("background", "full"):
        behind = backdrop(scene.background, rng)
        if rng.random() < 0.08:
            return _voice(f"{behind}: {' '.join(parts)}", rng)
        parts.append(behind)
    joint = ", " if rng.random() < 0.2 else " "
    return _voice(rng.choice(WRAPPERS).format(d=joint.join(parts)), rng)


def subject(scene: Scene, rng: random.Random, *, with_size: bool = False) -> str:
    """Name the things shown, e.g. ``"two hedgehogs"`` or ``"a small owl"``."""
    first, *rest = scene.things
    if rest:
        joint = rng.choice((" and ", " and ", " with ", " next to ", " & "))
        return joint.join((_one(first, rng), _one(rest[0], rng)))
    if scene.count > 1:
        number = rng.choice(
            (NUMBER_WORDS[scene.count], NUMBER_WORDS[scene.count], str(scene.count))
        )
        return f"{number} {plural(first.name)}"
    size_word = rng.choice(SIZE_WORDS[scene.size]) if with_size and scene.size else ""
    return with_article(f"{size_word} {first.name}") if size_word else _one(first, rng)


def backdrop(background: Background, rng: random.Random) -> str:
    """Describe the background, e.g. ``"on a sky-blue gradient"``."""
    phrase = rng.choice(PATTERN_PHRASES[background.pattern])
    colour = background.colour
    if background.second_colour is not None:
        colour = f"{colour} and {background.second_colour}"
    text = phrase.format(c=colour)
    return text.replace(" a orange", " an orange")


def _one(thing: Thing, rng: random.Random) -> str:
    return with_article(thing.name) if rng.random() < 0.7 else thing.name


def _voice(text: str, rng: random.Random) -> str:
    """Vary the typography as careless and careful authors do."""
    draw = rng.random()
    if draw < 0.45:
        return text[0].upper() + text[1:]
    if draw < 0.53:
        return text.title().replace("'S", "'s")
    if draw < 0.56:
        return text.upper()
    return text
