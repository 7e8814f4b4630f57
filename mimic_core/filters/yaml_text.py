"""Recipes as YAML text, read with bounds: a recipe may come from anybody.

YAML as such can ask for unbounded work: aliases of aliases, tags that make objects of their text,
numbers of any length. A recipe needs mappings, lists and plain scalars, so nothing else is read.
Text is taken event by event, so that what is out of bounds is refused before it costs anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mimic_core.base import files
from mimic_core.base.errors import FilterError

MAX_BYTES = 64 << 20  # a list of a million uids takes 40 MB
MAX_DEPTH = 64  # mappings and lists within each other
MAX_VALUES = 4_000_000  # texts and numbers, after aliases are written out
MAX_PARTS = 200_000  # mappings and lists, the corners of a lasso among them
MAX_NUMBER = 64  # characters
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_NAMED = {"null": None, "true": True, "false": False}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is there
_RESOLVER = yaml.resolver.Resolver()
_NULL_OR_BOOL = re.compile(
    r"(?P<null>~|null|Null|NULL|)|(?P<true>yes|Yes|YES|true|True|TRUE|on|On|ON)"
    r"|(?P<false>no|No|NO|false|False|FALSE|off|Off|OFF)"
)


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper, but exact for text that holds Unicode's own line breaks.

    With ``allow_unicode`` PyYAML writes those unquoted and reads them back as spaces; only its
    double-quoted style escapes them.
    """


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(character in text for character in "\x85\u2028\u2029\ufeff") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump(tree: dict[str, Any]) -> str:
    """Nested plain values as YAML text, the same text for equal values."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read(path: Path) -> str:
    """The text of a recipe file.

    Raises:
        FilterError: It is no file, too large, or not UTF-8.
    """
    try:
        return decoded(files.read_bounded(path, MAX_BYTES), str(path))
    except OSError as error:
        raise FilterError(
            f"the recipe cannot be read ({error.strerror or error})",
            got=str(path),
            next_step="check the path, or save the recipe again",
        ) from error


def decoded(data: bytes, name: str) -> str:
    """The text in ``data``, the bytes of the file ``name``. Raises like ``read``."""
    if len(data) > MAX_BYTES:
        raise FilterError(
            "the recipe is too large",
            got=f"{name}: more than {MAX_BYTES:,} bytes",
            allowed=f"up to {MAX_BYTES >> 20} MiB",
            next_step="give a file that holds a recipe",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FilterError(
            f"the recipe cannot be read ({error})",
            got=name,
            next_step="save the recipe as UTF-8 text",
        ) from error


def parse(text: str) -> Any:
    """The nested plain values in ``text``.

    Raises:
        FilterError: It is not YAML, or uses what a recipe cannot need; the message names the line.
    """
    if len(text) > MAX_BYTES:
        decoded(text.encode(errors="replace"), "text")  # refuses it
    try:
        return _Reader(yaml.parse(text, Loader=_LOADER)).document()
    except (yaml.YAMLError, RecursionError, UnicodeEncodeError) as error:
        raise FilterError(
            f"the recipe is not valid YAML ({' '.join(str(error).split())[:500]})",
            next_step="correct the file, or save the recipe again",
        ) from error


@dataclass
class _Reader:
    """Builds plain values from YAML's events, counting."""

    events: Iterator[Any]
    values: int = 0
    parts: int = 0
    _anchors: dict[str, tuple[Any, int, int]] = field(default_factory=dict)

    def document(self) -> Any:
        """The one document; None for an empty text."""
        found, documents = None, 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _refused("more than one document", event)
                found = self._value(next(self.events), 0)
        return found

    def _value(self, event: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _refused(f"more than {MAX_DEPTH} levels within each other", event)
        before = self.values, self.parts
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _refused(f"the alias *{event.anchor} stands for nothing above it", event)
            found, values, parts = self._anchors[event.anchor]
            self._count(values, parts, event)
            return found
        if isinstance(event, yaml.ScalarEvent):
            self._count(1, 0, event)
            found = _scalar(event)
        else:
            self._count(0, 1, event)
            if event.tag is not None:
                raise _refused(f"the tag {event.tag}", event)
            is_list = isinstance(event, yaml.SequenceStartEvent)
            found = self._list(depth) if is_list else self._mapping(depth)
        if event.anchor is not None:
            sizes = self.values - before[0], self.parts - before[1]
            self._anchors[event.anchor] = (found, *sizes)
        return found

    def _list(self, depth: int) -> list[Any]:
        found = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self._value(event, depth + 1))
        return found

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._value(event, depth + 1)
            if not isinstance(key, str):
                raise _refused(f"the key {str(key)[:80]}, which is no text", event)
            if key in found:
                raise _refused(f"the key {key[:80]} twice", event)
            found[key] = self._value(next(self.events), depth + 1)
        return found

    def _count(self, values: int, parts: int, event: Any) -> None:
        self.values += values
        self.parts += parts
        if self.values > MAX_VALUES:
            raise _refused(f"more than {MAX_VALUES:,} values", event)
        if self.parts > MAX_PARTS:
            raise _refused(f"more than {MAX_PARTS:,} mappings and lists", event)


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
        raise _refused(f"the tag {event.tag}", event)
    if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _refused("half of a pair of surrogates, which is no character", event)
    if not event.implicit[0]:
        return text  # quoted, or said to be text
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # types-pyyaml has none for it
    if tag in _NUMBERS:
        if len(text) > MAX_NUMBER:
            raise _refused(f"a number of {len(text):,} characters", event)
        node, maker = yaml.ScalarNode(tag, text), yaml.constructor.SafeConstructor()
        whole = tag == _NUMBERS[0]
        try:
            return maker.construct_yaml_int(node) if whole else maker.construct_yaml_float(node)
        except ValueError:  # such as 0b_, which only looks like one
            return text
    named = _NULL_OR_BOOL.fullmatch(text)
    return _NAMED[named.lastgroup or ""] if named else text  # dates too are text


def _refused(what: str, event: Any) -> FilterError:
    mark = event.start_mark
    return FilterError(
        f"the recipe holds {what}",
        got=f"line {mark.line + 1}, column {mark.column + 1}",
        allowed="mappings, lists, texts, numbers, true, false and null",
        next_step="correct that line, or save the recipe again",
    )
