"""Several pools as one: their shards side by side, each sample with the name of its pool.

A pool is called by the last part of its path, by more of it where two would be called alike.
Nothing depends on the order in which pools are given. The uids of a pool are those that it has by
itself, with one exception: pools that have no uids of their own may come by the same, since those
are made from file names, keys and captions. Such a uid is given to none of them; each gets one that
is made from it and the pool's name. A uid that pools bring along themselves is the same sample in
all: the first in the order of the pools' names is scored, the others are skipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from mimic_core.base.errors import SourceError
from mimic_core.base.identity import digest
from mimic_core.base.remote import RemotePath, as_place
from mimic_core.base.schema import NO_IMAGE, Sample, Skip
from mimic_core.sources.bucket import BucketFiles
from mimic_core.sources.folder import FolderFiles
from mimic_core.sources.source import Source, shard_names, shard_position

POOL = "pool"  # the column with the name of a sample's pool
_BETWEEN = "--"  # no name of a shard has two dashes side by side


@dataclass(frozen=True, kw_only=True)
class PoolsSource(Source):
    """Pools with their names, in the order of these; locators are relative to the folder ``files``
    that all of them lie in.
    """

    pools: tuple[tuple[str, Source], ...]

    @property
    def parts(self) -> Mapping[str, Source]:
        """The pools by name."""
        return dict(self.pools)

    @cached_property
    def _shards(self) -> dict[str, tuple[str, str]]:
        """Pool and shard there of each shard."""
        safe = {pool: name for name, pool in shard_names(name for name, _ in self.pools).items()}
        return {
            f"{safe[name]}{_BETWEEN}{shard}": (name, shard)
            for name, part in self.pools
            for shard in part.shards
        }

    @property
    def shards(self) -> tuple[str, ...]:
        """Those of each pool, behind its name."""
        return tuple(sorted(self._shards))

    def pool_of(self, shard: str) -> str:
        """The name of its pool."""
        return self._shards[shard][0]

    def index(self, shard: str) -> Iterator[Sample | Skip]:
        """What the pool's own index says, with the pool's name."""
        shard_position(self.shards, shard)
        name, inner = self._shards[shard]
        part = self.parts[name]
        place = PurePosixPath(*part.root.resolve().relative_to(self.root).parts)
        for one in part.index(inner):
            if isinstance(one, Skip):
                yield replace(one, shard=shard)
                continue
            meta = {
                f"source_{POOL}" if key == POOL else key: cell for key, cell in one.meta.items()
            }
            image = one.image
            if image != NO_IMAGE:
                image = replace(image, path=str(place / image.path))
            yield replace(one, shard=shard, image=image, meta={**meta, POOL: name})

    def fingerprint(self) -> str:
        """Over the names and the fingerprints of the pools."""
        found = [[name, part.fingerprint()] for name, part in self.pools]
        return digest(["pools", *found], length=64)

    def used(self) -> Iterable[str]:
        """None: each pool knows its own."""
        return ()

    def unread(self) -> Counter[str]:
        """What each pool does not read."""
        return sum((part.unread() for _, part in self.pools), Counter[str]())

    def columns_read(self) -> str:
        """Those of each pool."""
        return "; ".join(f"{name}: {part.columns_read()}" for name, part in self.pools)


def together(sources: Mapping[str, Source]) -> Source:
    """Pools by their paths as one.

    Raises:
        SourceError: Some have captions and some labels.
    """
    tasks = {path: source.task for path, source in sources.items()}
    if len(set(tasks.values())) > 1:
        words = {"pairs": "captions", "labels": "labels"}
        raise SourceError(
            "pools that are scored together go with the same, captions or labels",
            got=", ".join(f"{path}: {words[task]}" for path, task in tasks.items()),
            allowed="--task pairs, or --task labels, where every pool has them",
            next_step="leave out those that go with the other, or say which with --task",
        )
    names = pool_names(sources)
    first = next(iter(sources.values()))
    root = _common_folder({path: source.root.resolve() for path, source in sources.items()})
    return PoolsSource(
        files=BucketFiles(root) if isinstance(root, RemotePath) else FolderFiles(root),
        layout=" and ".join(sorted({source.layout for source in sources.values()})),
        task=first.task,
        alone=True,
        pools=tuple(sorted((names[path], source) for path, source in sources.items())),
    )


def _common_folder(roots: Mapping[str, Path]) -> Path:
    """The innermost folder that holds all of these.

    Raises:
        SourceError: There is none: they are in different storages.
    """
    first, *others = roots.values()
    for folder in (first, *first.parents):
        if folder.parts and all(one.is_relative_to(folder) for one in others):
            return folder
    raise SourceError(
        "pools in different places are not scored together: on this machine, or in one storage",
        got=", ".join(roots),
        next_step="bring them into one storage, or score each by itself",
    )


def pool_names(paths: Iterable[str]) -> dict[str, str]:
    """What each pool is called, by its path: as few of the last parts as tell it from the others.

    Raises:
        SourceError: Two paths are the same place.
    """
    places = {path: as_place(path).expanduser().resolve() for path in paths}
    whole = {path: place.parts[1:] or ("root",) for path, place in places.items()}
    for path, parts in whole.items():
        same = [one for one, others in whole.items() if others == parts and one != path]
        if same:
            raise SourceError(
                "one pool is given twice",
                got=f"{path}, {same[0]}",
                next_step="leave one of them out",
            )
    names: dict[str, str] = {}
    for path, parts in whole.items():
        others = [one for other, one in whole.items() if other != path]
        depth = next(
            n for n in range(1, len(parts) + 1) if parts[-n:] not in [o[-n:] for o in others]
        )
        names[path] = "/".join(parts[-depth:])
    return names


def _free(name: str, taken: Iterable[str]) -> str:
    """``name`` with ``source_`` in front as often as it takes to be none of those."""
    return name if name not in taken else _free(f"source_{name}", taken)


def uid_apart(pool: str, uid: str) -> str:
    """The uid of a sample whose own, made from its place, is that of a sample of another pool."""
    return digest([pool, uid], length=32)
