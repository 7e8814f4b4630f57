"""The things that the demo pictures show: emoji, their categories and their spoken names.

Left out on purpose: flags, skin-tone variants, text-like symbols, clock faces and most yellow
faces, because two pictures that nobody can tell apart would make the recorded truth arguable.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache

EMOJI_BY_CATEGORY: dict[str, str] = {
    "animal": (
        "🐒🦍🐕🐩🐺🦊🦝🐈🦁🐅🐎🦄🦓🦌🐂🐄🐖🐑🐪🦙🦒🐘🦏🐁🐇🦔🦇🐨🐼🦥🦨🦘"
        "🦃🐓🐥🐧🕊🦅🦆🦢🦉🦩🦚🦜🐸🐊🐢🦎🐍🐉🦕🦖"
        "🐋🐬🦈🐟🐠🐡🐙🐚🦀🦞🦑🐌🦋🐛🐜🐝🐞🕷"
    ),
    "plant": "💐🌸🌹🌺🌻🌷🌱🌲🌳🌴🌵🌾🍀🍁🍂🍄",
    "fruit and vegetable": "🍇🍈🍉🍊🍋🍌🍍🍎🍏🍐🍑🍒🍓🥝🍅🥥🥑🍆🥔🥕🌽🌶🥒🥦🧄🧅🥜🌰",
    "food": ("🍞🥐🥖🥨🥞🧇🧀🍖🍗🥩🥓🍔🍟🍕🌭🥪🌮🥚🍳🥘🥗🍿🍱🍙🍚🍜🍣🍤🥡🍦🍩🍪🎂🍰🧁🥧🍫🍬🍭🍮🍯"),
    "drink": "🍼🥛☕🍵🍾🍷🍸🍹🍺🥃🥤🧃",
    "vehicle": "🚂🚃🚄🚌🚑🚒🚓🚕🚗🚙🚚🚜🏍🛵🚲⚓⛵🛶🚢🛩🚁🚀🛸🛹🎠🎡",
    "building and place": "🏠🏢🏥🏦🏭🏰💒🗼🗽⛪🕌⛩⛲⛺🌋🗻🏖🏝🎪",
    "sky and weather": "🌙🌝🌞⭐🌈☔⛄🔥💧🌊🌍🌪⛅🪐☄❄⚡",
    "music and play": "🎸🎹🎺🎻🥁🎷🎤🎧📻🎮🎲🧩🧸🎈🎁🎀🎃🎄🪁🎯🎳🎨🔮",
    "sport": "⚽⚾🏀🏐🏈🎾🏓🏸🥊⛳⛸🛷🏆🥇",
    "clothing": "👓🕶👔👕👖🧣🧤🧥🧦👗👙👜🎒👞👟🥾👠👢👑👒🎩🎓🧢💍💄💎",
    "tool and device": (
        "📱☎🔋💻🖨💾💿🧮🎥📺📷🔍💡🔦🏮📕📚💰📦📫✏🖌📌✂🔒🔑🔨🪓⚖🧲"
        "🔬🔭📡🚪🛏🪑🚽🛁🧹🧺🧻🛒🔪🏺🧭⏰⌛☂🔔🏹🛡💣"
    ),
    "face and creature": "😀😍😎😡😱🤠🤡🥳🤖👻💀👽🎅🧙",
    "sign": "❤💙💚💛💔🛑🏁♻☢👣💋👁🧠🦷👍",
}

# Unicode names are catalogue entries ("SHALLOW PAN OF FOOD"); these are what people would type.
SPOKEN_NAMES: dict[str, str] = {
    "🐪": "camel", "🦏": "rhino", "🦃": "turkey bird", "🐥": "baby chick", "🕊": "dove",
    "🦕": "long-necked dinosaur", "🐡": "pufferfish", "🐚": "seashell", "🐝": "bee",
    "🐞": "ladybird", "💐": "bouquet of flowers", "🌹": "red rose", "🌲": "fir tree",
    "🌳": "leafy tree", "🌾": "sheaf of rice", "🍀": "four-leaf clover", "🍂": "fallen leaves",
    "🍇": "bunch of grapes", "🍒": "pair of cherries", "🥝": "kiwi fruit", "🌽": "ear of corn",
    "🥦": "head of broccoli", "🧄": "bulb of garlic", "🥜": "peanut", "🍞": "loaf of bread",
    "🥖": "baguette", "🥞": "stack of pancakes", "🧀": "wedge of cheese",
    "🍖": "piece of meat on the bone", "🍗": "chicken leg", "🥩": "raw steak",
    "🥓": "bacon strip", "🍟": "box of french fries", "🍳": "fried egg in a pan",
    "🥘": "pan of paella", "🍿": "box of popcorn", "🍚": "bowl of rice",
    "🍜": "bowl of ramen noodles", "🍣": "piece of sushi", "🍦": "ice cream cone",
    "🍰": "slice of strawberry cake", "🍬": "wrapped candy", "🍮": "caramel pudding",
    "☕": "cup of coffee", "🍵": "cup of green tea", "🍾": "champagne bottle",
    "🍷": "glass of red wine", "🍺": "mug of beer", "🥃": "whisky tumbler",
    "🥤": "soda cup with a straw", "🧃": "juice box", "🚃": "railway carriage",
    "🚄": "bullet train", "🚕": "yellow taxi", "🚗": "red car", "🚙": "blue van",
    "🏍": "motorbike", "🛵": "scooter", "⚓": "ship anchor", "🛩": "small plane", "🛸": "ufo",
    "🎡": "big wheel", "🏠": "house", "🏢": "office block", "🏰": "fairy-tale castle",
    "💒": "wedding chapel", "🏖": "beach with a parasol", "🌝": "full moon with a face",
    "🌞": "sun with a face", "⭐": "yellow star", "☔": "umbrella in the rain", "⛄": "snowman",
    "💧": "water drop", "🌊": "big wave", "🌍": "globe of the earth", "🌪": "tornado",
    "⛅": "sun behind a cloud", "🪐": "planet with a ring", "⚡": "lightning bolt",
    "🎹": "piano keyboard", "🥁": "drum", "🎧": "pair of headphones", "🎮": "game controller",
    "🎲": "dice", "🧩": "jigsaw piece", "🎀": "pink ribbon bow", "🎃": "halloween pumpkin",
    "🎯": "dartboard", "🎳": "bowling pins and ball", "🎨": "paint palette", "⚽": "football",
    "🏀": "basketball", "🎾": "tennis racket and ball", "🏓": "table tennis bat",
    "🏸": "badminton racket", "⛳": "golf hole with a flag", "🥇": "gold medal",
    "👓": "pair of glasses", "🕶": "pair of sunglasses", "👔": "shirt and tie",
    "👕": "blue t-shirt", "👖": "pair of jeans", "🧤": "pair of gloves", "🧦": "pair of socks",
    "👗": "blue dress", "🎒": "school backpack", "👞": "brown shoe", "👟": "running shoe",
    "👠": "red high heel", "👢": "woman's boot", "👒": "straw hat", "🧢": "baseball cap",
    "☎": "red telephone", "💻": "laptop", "💿": "compact disc", "🎥": "film camera",
    "🔍": "magnifying glass", "💡": "light bulb", "🔦": "torch", "🏮": "red paper lantern",
    "📕": "red book", "📚": "stack of books", "💰": "bag of money", "📦": "cardboard box",
    "📫": "mailbox", "🖌": "paintbrush", "📌": "red drawing pin", "✂": "pair of scissors",
    "🔒": "padlock", "⚖": "pair of scales", "📡": "satellite dish", "🧻": "toilet roll",
    "🔪": "kitchen knife", "🏺": "greek vase", "☂": "purple umbrella", "🔔": "golden bell",
    "😀": "grinning face", "😍": "face with heart eyes", "😎": "face with sunglasses",
    "😡": "angry red face", "😱": "screaming face", "🤠": "cowboy face", "🥳": "party face",
    "👽": "alien", "🎅": "santa claus", "🧙": "wizard", "❤": "red heart", "🛑": "stop sign",
    "♻": "recycling sign", "👣": "pair of footprints", "👁": "human eye", "🦷": "white tooth",
    "👍": "thumbs up",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Thing:
    """One emoji that can be drawn: its character, spoken name and category."""

    char: str
    name: str
    category: str


def spoken_name(char: str) -> str:
    """Return the name that captions use, e.g. ``"🐎"`` -> ``"horse"``."""
    if char in SPOKEN_NAMES:
        return SPOKEN_NAMES[char]
    return unicodedata.name(char).lower().removesuffix(" face")


@cache
def all_things() -> tuple[Thing, ...]:
    """Return every drawable thing, in the fixed order of the tables above."""
    return tuple(
        Thing(char=char, name=spoken_name(char), category=category)
        for category, chars in EMOJI_BY_CATEGORY.items()
        for char in chars
    )


def with_article(name: str) -> str:
    """Return the name with its indefinite article, e.g. ``"owl"`` -> ``"an owl"``."""
    if name in UNCOUNTABLE:
        return name
    # "u" is left out: "ufo" and "unicorn" start with a spoken "y"; "umbrella" is spelled out.
    vowel_sound = name[0] in "aeio" or name.startswith(("umbrella", "hourglass"))
    return f"{'an' if vowel_sound else 'a'} {name}"


UNCOUNTABLE = frozenset({"dice", "fallen leaves", "mount fuji", "santa claus"})
IRREGULAR_PLURALS = {
    "mouse": "mice", "loaf of bread": "loaves of bread", "deer": "deer", "sheep": "sheep",
    "fish": "fish", "tropical fish": "tropical fish", "butter": "pieces of butter",
    "santa claus": "santas", "fallen leaves": "fallen leaves", "dice": "dice",
    "mount fuji": "mountains", "snowman": "snowmen", "pufferfish": "pufferfish",
    "kitchen knife": "kitchen knives", "wolf": "wolves", "ox": "oxen", "sheaf": "sheaves",
    "maple leaf": "maple leaves", "white tooth": "white teeth", "tornado": "tornadoes",
    "shirt and tie": "shirts and ties", "bow and arrow": "bows and arrows",
    "tennis racket and ball": "tennis rackets and balls",
    "statue of liberty": "statues of liberty", "bowling pins and ball": "bowling sets",
    "thumbs up": "thumbs up",
}  # fmt: skip


def plural(name: str) -> str:
    """Return the plural of a spoken name, e.g. ``"slice of pizza"`` -> ``"slices of pizza"``."""
    if name in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[name]
    for joint in (" of ", " with ", " in ", " on ", " behind "):
        if joint in name:
            head, tail = name.split(joint, 1)
            return plural(head) + joint + tail
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    if name.endswith(("tomato", "potato", "mango", "volcano")):
        return name + "es"
    return name + "s"
