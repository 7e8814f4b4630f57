"""Draw the rooms of mimic_core from its imports, and list every file with its first sentence.

``python docs/draw_rooms.py`` writes ``docs/rooms.svg`` and the file list in
``docs/architecture.md``; ``tests/test_docs.py`` holds both against the tree. An arrow runs from a
room to one that it imports from. Arrows that follow from others (A to C where A leads to B and B to
C) are pale, so that the eye finds the way down. Only the standard library is used.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
LIST_BEGINS, LIST_ENDS = "<!-- files -->\n", "<!-- end of files -->\n"

TORCH = {"features", "mimic", "models", "scoring"}  # proofs has three files that compute with it
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 150, 46, 36, 62, 24
STYLE = """
  .room { fill: #f6f4ee; stroke: #6b6658; }
  .torch { fill: #fbe3c8; }
  .name { font: 600 14px system-ui, sans-serif; fill: #26241f; }
  .story { font: 10.5px system-ui, sans-serif; fill: #5b574c; }
  .way { fill: none; stroke: #4a6fa5; stroke-width: 1.4; }
  .implied { stroke: #b9c4d6; stroke-width: 0.8; }
  @media (prefers-color-scheme: dark) {
    .room { fill: #2b2a26; stroke: #8d8878; } .torch { fill: #4a3722; }
    .name { fill: #f0ede4; } .story { fill: #bdb7a8; }
    .way { stroke: #86aee6; } .implied { stroke: #47546b; }
  }
"""
TITLE = "The rooms of mimic_core and their imports; tinted rooms compute with torch"
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0 8 4 0 8z" fill="#7f93b2"/></marker>'
)
STORIES = {
    "app": "the screen",
    "base": "words all rooms share",
    "cli": "the commands",
    "export": "selection to files",
    "features": "images to feature sets",
    "filters": "recipe to selection",
    "jobs": "detached workers",
    "mimic": "scores and weights",
    "models": "name to module",
    "proofs": "does a recipe help?",
    "runs": "what is on disk",
    "scoring": "pool to run",
    "sources": "pool to samples",
    "stats": "figures of arrays",
}


def sources() -> dict[str, Path]:
    """Module names of the core and the screen, with their files."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ("mimic_core", "app")
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def room_of(module: str, names: Iterable[str]) -> str | None:
    """``app``, or the room of mimic_core that a module stands in; None for the rest."""
    parts = module.split(".")
    if parts[0] == "app":
        return "app"
    is_room = len(parts) > 1 and any(name.startswith(f"mimic_core.{parts[1]}.") for name in names)
    return parts[1] if parts[0] == "mimic_core" and is_room else None


def arrows() -> dict[str, set[str]]:
    """Which rooms each room imports from."""
    files = sources()
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        here = room_of(module, files)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if here is None or not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            for alias in node.names:
                there = room_of(f"{node.module}.{alias.name}", files)
                if there not in {None, here}:
                    found.setdefault(here, set()).add(str(there))
                    found.setdefault(str(there), set())
    return found


def floors(ways: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each room: 0 imports from no other, else one above the highest it imports."""
    known: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in known:
            known[room] = 1 + max((floor(below) for below in ways[room]), default=-1)
        return known[room]

    for room in ways:
        floor(room)
    return known


def implied(ways: Mapping[str, set[str]], start: str, end: str) -> bool:
    """Whether ``end`` can also be reached from ``start`` through another room."""
    seen: set[str] = set()
    ahead = [room for room in ways[start] if room != end]
    while ahead:
        room = ahead.pop()
        if end in ways[room]:
            return True
        if room not in seen:
            seen.add(room)
            ahead.extend(ways[room])
    return False


def drawing() -> str:
    """The picture as SVG: floors from top to bottom, arrows down."""
    ways = arrows()
    level = floors(ways)
    height = max(level.values()) + 1
    rows = [sorted(room for room in ways if level[room] == floor) for floor in range(height)]
    widest = max(len(row) for row in rows)
    across = MARGIN * 2 + widest * WIDTH + (widest - 1) * GAP_X
    down = MARGIN * 2 + height * HEIGHT + (height - 1) * GAP_Y
    place = {}
    for floor, row in enumerate(rows):
        wide = len(row) * WIDTH + (len(row) - 1) * GAP_X
        shift = (GAP_X + WIDTH) / 4 * (-1 if floor % 2 else 1) if len(row) < widest else 0
        left = (across - wide) / 2 + shift
        for n, room in enumerate(row):
            place[room] = (
                left + n * (WIDTH + GAP_X),
                down - MARGIN - HEIGHT * (floor + 1) - GAP_Y * floor,
            )
    lines = [(implied(ways, a, b), a, b) for a in sorted(ways) for b in sorted(ways[a])]
    parts = [_way(place[a], place[b], pale=pale) for pale, a, b in sorted(lines, reverse=True)]
    parts += [_room(room, *place[room]) for room in sorted(ways)]
    size = f'viewBox="0 0 {across:g} {down:g}" role="img"'
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<title>{TITLE}</title>"]
    return "\n".join([*head, f"<style>{STYLE}</style>", TIP, *parts, "</svg>", ""])


def _room(name: str, x: float, y: float) -> str:
    kind = "room torch" if name in TORCH else "room"
    middle = x + WIDTH / 2
    text = f'x="{middle:g}" text-anchor="middle"'
    return (
        f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>'
        f'<text class="name" {text} y="{y + 19:g}">{escape(name)}</text>'
        f'<text class="story" {text} y="{y + 35:g}">{escape(STORIES.get(name, ""))}</text>'
    )


def _way(start: tuple[float, float], end: tuple[float, float], *, pale: bool) -> str:
    x0, y0 = start[0] + WIDTH / 2, start[1] + HEIGHT
    x1, y1 = end[0] + WIDTH / 2, end[1] - 1
    bend = (y1 - y0) / 2
    kind = "way implied" if pale else "way"
    return (
        f'<path class="{kind}" marker-end="url(#tip)" '
        f'd="M{x0:g} {y0:g}C{x0:g} {y0 + bend:g} {x1:g} {y1 - bend:g} {x1:g} {y1:g}"/>'
    )


def file_list() -> str:
    """Every file of the core and the screen, with the first sentence of its docstring."""
    lines = []
    for folder in sorted({path.parent for path in sources().values()}):
        name = folder.relative_to(ROOT).as_posix()
        lines += [f"\n**`{name}/`** {_story(folder / '__init__.py')}\n"]
        files = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
        lines += [f"- `{path.name}` {_story(path)}" for path in files]
    return "\n".join(lines).strip() + "\n"


def _story(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def with_file_list(document: str) -> str:
    """``document`` with the file list of today between its two markers."""
    before, _, rest = document.partition(LIST_BEGINS)
    _, _, after = rest.partition(LIST_ENDS)
    return f"{before}{LIST_BEGINS}\n{file_list()}\n{LIST_ENDS}{after}"


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
    text = ARCHITECTURE.read_text(encoding="utf-8")
    ARCHITECTURE.write_text(with_file_list(text), encoding="utf-8")
