"""Plant noise of the kinds that web-crawled image-caption pairs suffer from.

Eleven kinds: four mismatched or junk captions, three damaged captions, three damaged images, and
near-duplicates. Each function here changes a caption or an image; make_pool.py decides which
samples get which kind and records it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image, ImageDraw, ImageFilter

from data_samples.captions import NUMBER_WORDS, write_caption
from data_samples.objects import Thing, all_things, plural, with_article
from data_samples.scenes import COLOURS, POSITIONS, Scene

NoiseKind = Literal[
    "swapped_caption", "filename_caption", "junk_caption", "keyword_spam",
    "truncated_caption", "overlong_caption", "wrong_attribute",
    "blurred_image", "blank_image", "tiny_image", "near_duplicate",
]  # fmt: skip
CLEAN = "clean"

# Share of the whole pool; together 30 %, of which 65 % are mismatched or junk captions.
NOISE_SHARES: dict[NoiseKind, float] = {
    "swapped_caption": 0.100, "filename_caption": 0.035, "junk_caption": 0.030,
    "keyword_spam": 0.030, "truncated_caption": 0.015, "overlong_caption": 0.015,
    "wrong_attribute": 0.025, "blurred_image": 0.015, "blank_image": 0.010,
    "tiny_image": 0.010, "near_duplicate": 0.015,
}  # fmt: skip
MISMATCHED_OR_JUNK: tuple[NoiseKind, ...] = (
    "swapped_caption", "filename_caption", "junk_caption", "keyword_spam",
)  # fmt: skip

JUNK_CAPTIONS = (
    "#", "--5--", "Image", "...", "null", "1", "alt", "Untitled", "click to enlarge", "&nbsp;",
    "n/a", "Loading...", "placeholder", "image not found", "undefined", "photo", "#1", "- -", "*",
    "TM11454", "2 of 7", "Read more", "Sign in to see the full picture", "(c) 2019", "SKU 88-1207",
    "_____", "thumbnail", "no description", "share on facebook", "???", "picture 3", "next >>",
    "[object Object]", "img", "logo", "advertisement", "lorem ipsum dolor sit amet", "0", "x",
)  # fmt: skip
SPAM_WORDS = (
    "cheap", "buy online", "free shipping", "best price", "sale 2023", "discount", "coupon",
    "wholesale", "download free", "wallpaper hd", "4k", "1080p", "for iphone", "android",
    "top 10", "near me", "review", "unboxing", "seo", "crypto", "casino bonus", "weight loss",
    "printable", "pdf", "template", "vector eps", "royalty free", "psd", "mockup", "background",
    "how to", "diy", "tutorial", "vintage", "luxury", "original", "new arrival", "hot deal",
    "limited offer", "gift ideas", "size chart", "xl", "xxl", "men", "women", "kids", "2024",
)  # fmt: skip
BOILERPLATE = (
    "All rights reserved and any use without written permission of the owner is forbidden.",
    "Scroll down to read the full story of how we ended up with this one in our collection.",
    "We ship to more than forty countries and returns are accepted within thirty days.",
    "Sign up to our newsletter and get ten percent off your first order over fifty euros.",
    "This post may contain affiliate links, which means that we earn a small commission.",
    "Last updated on Tuesday by the editorial team, filed under everything and nothing.",
    "If you cannot see this picture, please enable scripts in your browser and try again.",
    "Many thanks to our sponsors, without whom this page would not have been possible.",
    "Click on the picture to enlarge it, then use the arrow keys to browse the whole gallery.",
    "Comments are closed, but you can still send us a letter at the address given below.",
)


@dataclass(frozen=True, slots=True)
class NoisyCaption:
    """A spoiled caption and, for the record, what was done."""

    text: str
    detail: str | None = None


def filename_caption(_scene: Scene, rng: random.Random) -> NoisyCaption:
    """A camera's or content system's file name."""
    number, year = rng.randrange(1, 9999), rng.randrange(2004, 2024)
    month, day = rng.randrange(1, 13), rng.randrange(1, 29)
    styles = (
        f"IMG_{number:04d}.jpg", f"DSC{number:05d}.JPG", f"DSCN{number:04d}.jpg",
        f"P{month:02d}{day:02d}{number:04d}.JPG", f"image{number % 40:03d}.png",
        f"Screenshot {year}-{month:02d}-{day:02d} at 10.{number % 60:02d}.31.png",
        f"photo-{number}-300x200.jpeg", f"IMG-{year}{month:02d}{day:02d}-WA{number:04d}",
        f"{number:08x}{number * 7919:08x}.jpg", f"untitled-{number % 30}.psd", f"scan{number}.tif",
        f"download ({number % 12}).jpg", f"{year}_{month:02d}_{day:02d}_{number:05d}_n.jpg",
    )  # fmt: skip
    return NoisyCaption(rng.choice(styles))


def junk_caption(_scene: Scene, rng: random.Random) -> NoisyCaption:
    """A leftover that says nothing."""
    return NoisyCaption(rng.choice(JUNK_CAPTIONS))


def keyword_spam(scene: Scene, rng: random.Random) -> NoisyCaption:
    """Search-engine bait with the names of things that are not in the picture."""
    strangers = [thing for thing in all_things() if thing not in scene.things]
    words = rng.sample(SPAM_WORDS, rng.randrange(6, 11))
    words += [thing.name for thing in rng.sample(strangers, rng.randrange(2, 4))]
    rng.shuffle(words)
    return NoisyCaption(rng.choice((", ", " ", " | ", ",")).join(words))


def truncated_caption(scene: Scene, rng: random.Random) -> NoisyCaption:
    """A caption cut off before it says what it is about."""
    whole = write_caption(scene, rng, "full")
    # Cut inside the thing's name, or before it where a wrapper stands in front.
    start = max(whole.lower().find(scene.things[0].name.split()[0]), 3)
    end = min(start + rng.randrange(0, 3), len(whole) - 1)
    return NoisyCaption(whole[:end].rstrip() + rng.choice(("", "...", "-", " [..")), detail=whole)


def overlong_caption(scene: Scene, rng: random.Random) -> NoisyCaption:
    """A caption of more than 77 tokens; what it is about comes last, often past the context."""
    sentences = rng.sample(BOILERPLATE, rng.randrange(5, 8))
    return NoisyCaption(" ".join((*sentences, write_caption(scene, rng))))


def wrong_attribute(scene: Scene, rng: random.Random) -> NoisyCaption:
    """A caption with the right thing but a wrong background, number, position or colour."""
    choices = ["background", "number", "colour"]
    if scene.position is not None:
        choices.append("position")
    match rng.choice(choices):
        case "background":
            return _wrong_background(scene, rng)
        case "number":
            return _wrong_number(scene, rng)
        case "position":
            return _wrong_position(scene, rng)
        case _:
            return _wrong_colour(scene, rng)


def _wrong_background(scene: Scene, rng: random.Random) -> NoisyCaption:
    shown = {scene.background.colour, scene.background.second_colour}
    told = rng.choice([colour for colour in COLOURS if colour not in shown])
    background = replace(scene.background, colour=told, second_colour=None)
    caption = write_caption(replace(scene, background=background), rng, "background")
    return NoisyCaption(caption, f"background {scene.background.colour}, told {told}")


def _wrong_number(scene: Scene, rng: random.Random) -> NoisyCaption:
    told = rng.choice([number for number in (4, 5, 6) if number != scene.count])
    number_word = {4: "four", 5: "five", 6: "six"}[told]
    text = f"{number_word} {plural(scene.things[0].name)}"
    shown = NUMBER_WORDS[scene.count]
    return NoisyCaption(text.capitalize(), f"number {shown}, told {number_word}")


def _wrong_position(scene: Scene, rng: random.Random) -> NoisyCaption:
    told = rng.choice([position for position in POSITIONS if position != scene.position])
    caption = write_caption(replace(scene, position=told), rng, "position")
    return NoisyCaption(caption, f"position {scene.position}, told {told}")


def _wrong_colour(scene: Scene, rng: random.Random) -> NoisyCaption:
    thing = scene.things[0]
    # No thing in the pool looks like this, so the caption is wrong whatever the thing is.
    told = rng.choice(("turquoise", "tartan", "camouflage-patterned", "neon violet"))
    last_word = thing.name.split()[-1] if thing.name.split()[0] in COLOURS else thing.name
    return NoisyCaption(f"a photo of {with_article(f'{told} {last_word}')}", f"colour, told {told}")


CAPTION_NOISE: Mapping[NoiseKind, Callable[[Scene, random.Random], NoisyCaption]] = {
    "filename_caption": filename_caption,
    "junk_caption": junk_caption,
    "keyword_spam": keyword_spam,
    "truncated_caption": truncated_caption,
    "overlong_caption": overlong_caption,
    "wrong_attribute": wrong_attribute,
}


def blurred_image(image: Image.Image, rng: random.Random) -> Image.Image:
    """Blur the image until the thing is hardly recognised."""
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(8.0, 13.0)))


def blank_image(image: Image.Image, rng: random.Random) -> Image.Image:
    """Replace the image by an empty one: one flat tone or a crossed-out placeholder."""
    tone = rng.choice(((255, 255, 255), (238, 238, 238), (0, 0, 0), (204, 204, 204)))
    blank = Image.new("RGB", image.size, tone)
    if rng.random() < 0.5:
        line = tuple(255 - channel // 2 if channel < 128 else channel - 40 for channel in tone)
        right, bottom = image.width - 9, image.height - 9
        draw = ImageDraw.Draw(blank)
        draw.rectangle((8, 8, right, bottom), outline=line, width=2)
        draw.line((8, 8, right, bottom), fill=line, width=2)
        draw.line((8, bottom, right, 8), fill=line, width=2)
    return blank


def tiny_image(image: Image.Image, rng: random.Random) -> Image.Image:
    """Shrink the image to the size of a tracking pixel or a favicon."""
    width = rng.randrange(4, 13)
    height = max(3, round(width * image.height / image.width))
    return image.resize((width, height), Image.Resampling.BILINEAR)


IMAGE_NOISE: Mapping[NoiseKind, Callable[[Image.Image, random.Random], Image.Image]] = {
    "blurred_image": blurred_image,
    "blank_image": blank_image,
    "tiny_image": tiny_image,
}


def near_duplicate_image(image: Image.Image, rng: random.Random) -> Image.Image:
    """Crop a few pixels off each side and change the size a little, as re-uploads do."""
    left, top, right, bottom = (rng.randrange(2, 6) for _ in range(4))
    cropped = image.crop((left, top, image.width - right, image.height - bottom))
    factor = rng.uniform(0.88, 1.06)
    size = (round(cropped.width * factor), round(cropped.height * factor))
    return cropped.resize(size, Image.Resampling.BICUBIC)


def share_no_thing(first: Scene, second: Scene) -> bool:
    """Return whether two scenes show entirely different things."""
    names: set[Thing] = set(first.things)
    return names.isdisjoint(second.things)
