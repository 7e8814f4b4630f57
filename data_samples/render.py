"""Draw a `Scene` with Pillow and the colour bitmap font Noto Color Emoji."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from data_samples.scenes import COLOURS, RGB, Background, Placement, Scene
from mimic_core.base.errors import SourceError

FONT_PATH = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
# The font holds one bitmap strike of 136 x 128 px; FreeType offers it at this size only.
FONT_SIZE = 109
GLYPH_SIZE = 160

Pixels = NDArray[np.float32]


@cache
def emoji_font() -> ImageFont.FreeTypeFont:
    """Load the emoji font.

    Raises:
        SourceError: The font is not installed; the message names its Debian package.
    """
    if not FONT_PATH.is_file():
        raise SourceError(
            "The emoji font that the demo pictures are drawn with is not installed",
            got=str(FONT_PATH),
            next_step="install the Debian package fonts-noto-color-emoji",
        )
    return ImageFont.truetype(str(FONT_PATH), FONT_SIZE)


def render(scene: Scene) -> Image.Image:
    """Draw the scene as an RGB image of its width and height in pixels."""
    canvas = _draw_background(scene.background, scene.width, scene.height)
    for placement in scene.placements:
        _paste(canvas, placement, shadow=scene.shadow)
    return canvas


@cache
def _glyph(char: str, *, shadow: bool) -> Image.Image:
    """Return the emoji centred in a transparent square, with a soft drop shadow if asked."""
    glyph = Image.new("RGBA", (GLYPH_SIZE, GLYPH_SIZE))
    ImageDraw.Draw(glyph).text((12, 16), char, font=emoji_font(), embedded_color=True)
    if not shadow:
        return glyph
    dark = Image.new("RGBA", glyph.size, (20, 16, 40, 0))
    offset_alpha = Image.new("L", glyph.size)
    offset_alpha.paste(glyph.getchannel("A").point(lambda value: value * 0.45), (3, 6))
    dark.putalpha(offset_alpha.filter(ImageFilter.GaussianBlur(4)))
    return Image.alpha_composite(dark, glyph)


def _paste(canvas: Image.Image, placement: Placement, *, shadow: bool) -> None:
    # The drawn emoji fills 128 of the square's GLYPH_SIZE pixels.
    side = round(placement.scale * min(canvas.size) * GLYPH_SIZE / 128)
    glyph = _glyph(placement.thing.char, shadow=shadow)
    glyph = glyph.resize((side, side), Image.Resampling.LANCZOS)
    glyph = glyph.rotate(placement.angle, Image.Resampling.BICUBIC)
    left = round(placement.x * canvas.width - side / 2)
    top = round(placement.y * canvas.height - side / 2)
    canvas.paste(glyph, (left, top), glyph)


def _draw_background(background: Background, width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(background.seed)
    base = _jittered(COLOURS[background.colour], rng)
    if background.second_colour is not None:
        other = _jittered(COLOURS[background.second_colour], rng)
    else:
        # The second tone stays near the first, so that the caption's colour name holds.
        other = _tint(base, towards_white=bool(base.mean() < 150), amount=rng.uniform(0.25, 0.45))
    share = _blend_share(background, (height, width), rng)
    pixels = base + (other - base) * share[..., None]
    if background.pattern == "paper":
        pixels += rng.normal(0.0, 1.5, (height, width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _jittered(colour: RGB, rng: np.random.Generator) -> Pixels:
    return np.clip(np.array(colour) + rng.uniform(-9, 9, 3), 0, 255).astype(np.float32)


def _tint(colour: Pixels, *, towards_white: bool, amount: float) -> Pixels:
    goal = 255.0 if towards_white else 40.0
    # Darkening shows more than lightening, so less of it is needed.
    strength = amount if towards_white else amount * 0.55
    return (colour + (goal - colour) * strength).astype(np.float32)


def _blend_share(
    background: Background, shape: tuple[int, int], rng: np.random.Generator
) -> Pixels:
    """Return the share (H, W) in [0, 1] of the second tone at each pixel."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = math.radians(background.angle)
    along = (x - width / 2) * math.cos(angle) + (y - height / 2) * math.sin(angle)
    across = (y - height / 2) * math.cos(angle) - (x - width / 2) * math.sin(angle)
    # Lengths follow the canvas, so that a scene looks alike at every resolution.
    period = min(shape) * rng.uniform(0.13, 0.25)
    match background.pattern:
        case "plain":
            return np.zeros(shape, np.float32)
        case "gradient":
            ramp: Pixels = along / (2 * along.max()) + 0.5
            return ramp
        case "striped":
            return _soft_step(np.sin(along * 2 * math.pi / period))
        case "checkered":
            wave = np.sin(along * math.pi / period) * np.sin(across * math.pi / period)
            return _soft_step(wave * 2)
        case "dotted":
            wave = np.cos(along * 2 * math.pi / period) + np.cos(across * 2 * math.pi / period)
            return _soft_step((wave - 0.9) * 2)
        case "rays":
            turns = np.arctan2(y - height * 0.5, x - width * 0.5) + angle
            return _soft_step(np.sin(turns * int(rng.integers(7, 12))) * 3)
        case "bokeh":
            return _bokeh(x, y, min(shape), rng)
        case "paper":
            return _clouds(shape, rng)


def _soft_step(wave: Pixels) -> Pixels:
    """Turn a wave into bands with slightly softened edges."""
    bands: Pixels = np.clip(wave * 3 + 0.5, 0.0, 1.0)
    return bands


def _bokeh(x: Pixels, y: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    share: Pixels = np.zeros(x.shape, np.float32)
    for _ in range(12):
        radius = side * rng.uniform(0.04, 0.15)
        centre_x, centre_y = rng.uniform(0, x.shape[1]), rng.uniform(0, x.shape[0])
        inside: Pixels = np.clip(radius - np.hypot(x - centre_x, y - centre_y), 0, 1)
        share += inside * rng.uniform(0.3, 0.8)
    return share.clip(0, 1)


def _clouds(shape: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Smooth noise: a few random values, enlarged."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    smooth = coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32) / np.float32(255)
