"""One field of the settings as people meet it: its words, its choices, its bounds.

The fields of ``mimic_core.base.config`` carry them in pydantic's own ``Field``; the options of the
command line and the forms of the app are made from what is read here.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

INSIDE = 1e-8  # number fields of a form know no bounds that are not allowed themselves


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What a setting that is not given stands for, in words; annotates its field."""

    words: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a config.

    Attributes:
        name: Its name in Python.
        title: Its label on the screen.
        description: What it is, in sentences.
        kind: bool, int, float, str, or tuple for several strings.
        choices: All that it may be; empty where any value of its kind may be given.
        optional: Whether it may be None.
        default: None where there is none.
        required: Whether there is no default.
        otherwise: What it is where it is not given, in words; None if those are not needed.
        least, most: Its bounds, if any; one that is not allowed itself is moved in by ``INSIDE``.
    """

    name: str
    title: str
    description: str
    kind: type
    choices: tuple[str, ...]
    optional: bool
    default: Any
    required: bool
    otherwise: str | None
    least: Any
    most: Any


def setting(config: type[BaseModel], name: str) -> Setting:
    """The field ``name`` of ``config``."""
    field = config.model_fields[name]
    kinds: list[Any] = [field.annotation]
    if get_origin(field.annotation) in (Union, types.UnionType):
        kinds = list(get_args(field.annotation))
    kind = next(one for one in kinds if one is not type(None))
    origin = get_origin(kind)
    words = [one.words for one in field.metadata if isinstance(one, Otherwise)]
    bounds: dict[type, Any] = {type(one): one for one in field.metadata}
    return Setting(
        name=name,
        title=field.title or name.replace("_", " ").capitalize(),
        description=" ".join((field.description or "").split()),
        kind=str if origin is Literal else origin or kind,
        choices=get_args(kind) if origin is Literal else (),
        optional=type(None) in kinds,
        default=None if field.is_required() else field.default,
        required=field.is_required(),
        otherwise=words[0] if words else None,
        least=bounds[Gt].gt + INSIDE if Gt in bounds else bounds[Ge].ge if Ge in bounds else None,
        most=bounds[Lt].lt - INSIDE if Lt in bounds else bounds[Le].le if Le in bounds else None,
    )
