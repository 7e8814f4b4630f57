"""A table of captions whose images are named by their addresses alone: Conceptual Captions, and the
metadata of DataComp and LAION before, or without, a download.

A row's image is the file of the pool that has the name its URL ends in, if there is exactly one
such file and no other URL of the table ends alike. Else the row has no image.
"""

from __future__ import annotations

from mimic_core.base.config import Task
from mimic_core.base.errors import SourceError
from mimic_core.sources.guess import URL_NAMES
from mimic_core.sources.layouts import table
from mimic_core.sources.offers import Offer, Place
from mimic_core.sources.tables.loading import table_suffix


def offer(place: Place, task: Task | None) -> Offer | SourceError | None:
    """The tables with a column of URLs, at the root, or where there is none, in any folder."""
    nested = [name for name in place.names if table_suffix(name)]
    for names in (table.candidates(place), nested):
        found: dict[str, Offer] = {}
        for name in names:
            try:
                found[name] = table.reading(place, (name,), task, images=URL_NAMES, imageless=True)
            except SourceError:
                continue
        if found:
            try:
                return table.reading(place, tuple(found), task, images=URL_NAMES, imageless=True)
            except SourceError as error:
                return error
    return None
