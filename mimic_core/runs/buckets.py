"""Runs in object storage: copied to this machine to be read, and sent there when they are finished.

What is read is a copy beside the cache: ``run.json``, tables and proofs of the run and of its
feature set, each fetched again when its ETag has changed. Arrays, indexes and checkpoints stay
where they are. A run is sent whole, arrays too, its ``run.json`` last: where that is, all is there.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from mimic_core.base import blocks, files
from mimic_core.base.errors import RemoteError, RunError
from mimic_core.base.remote import RemotePath, forget
from mimic_core.runs.featureset import FEATURES_DIR
from mimic_core.runs.record import RunRecord

COPIED = ".copied.json"  # in a copy: which version of each file it holds
_LEFT_THERE = ("arrays", "checkpoints", "index")
_READ = (".json", ".parquet")
_PIECE_BYTES = 8 << 20
_AT_ONCE = 8  # uploads


def working_folder(root: RemotePath) -> Path:
    """The folder of this machine in which runs are made that go to ``root``; what is unfinished
    stays there, and so do the features.
    """
    return blocks.beside_cache("scoring") / _name(root)


def copy_run(place: RemotePath) -> Path:
    """A copy of the run at ``place``, as far as it is read; brought up to date.

    Raises:
        RunError: There is none.
        RemoteError: It cannot be read, or changes meanwhile.
    """
    root = place.parent
    copies = blocks.beside_cache("runs") / _name(root)
    path: Path = copies / place.name
    if not _copy(place, path, "run.json"):
        raise RunError(
            "there is no run there, or it is not finished",
            got=place.url,
            next_step="see `python -m mimic_core runs list --out` with the folder above it",
        )
    features = files.read_record(path / "run.json", "run").get("feature_set")
    if isinstance(features, str) and Path(features).name == features:
        _copy(root / FEATURES_DIR / features, copies / FEATURES_DIR / features, "features.json")
    return path


def copy_records(root: RemotePath) -> Path:
    """A folder with copies of all ``run.json`` below ``root``. Raises as ``copy_run``."""
    copies = blocks.beside_cache("runs") / f"{_name(root)}.list"
    forget(root)
    names = root.listing()
    runs = {name for name in names if _is_safe(name) and name.endswith("/run.json")}
    runs = {name for name in runs if name.count("/") == 1}
    for old in copies.glob("*/run.json"):
        if old.relative_to(copies).as_posix() not in runs:
            old.unlink()
    for name in sorted(runs):
        data = (root / name).read_range(0, names[name])
        files.write_bytes(copies / name, data)
    return copies


def send_run(path: Path, record: RunRecord, root: RemotePath) -> RemotePath:
    """Write the finished run at ``path``, of that ``record``, and its feature sets below ``root``;
    returns where it is.

    What is there already stays. Stopped or killed, no ``run.json`` is there, and the next try goes
    on.

    Raises:
        RemoteError: Object storage takes no more.
    """
    for name in (record.feature_set, record.tangent_set):
        if name is not None:
            local = path.parent / FEATURES_DIR / name
            _send(local, root / FEATURES_DIR / name, "features.json")
    place: RemotePath = root / record.run_id
    _send(path, place, "run.json")
    return place


def refuse_copy(path: Path) -> None:
    """Refuse to change a run that is read from object storage.

    Raises:
        RunError: ``path`` is a copy.
    """
    if (path / COPIED).exists():
        raise RunError(
            "a run in object storage is only read",
            got=path.name,
            allowed="runs list, runs show, filter, export and replay",
            next_step="bring it to this machine with the tool of that service, such as "
            "`aws s3 sync`, and name that folder",
        )


def _name(root: RemotePath) -> str:
    return hashlib.sha256(root.url.encode()).hexdigest()[:16]


def _copy(place: RemotePath, local: Path, last: str) -> bool:
    """Bring what is read of ``place`` to ``local``; False where ``last`` is not there."""
    there = _versions(place)
    if last not in there:
        return False
    known = files.read_json(local / COPIED) if (local / COPIED).exists() else {}
    for old in [name for name in known if name not in there and _is_safe(name)]:
        (local / old).unlink(missing_ok=True)
    for name in sorted(there, key=lambda name: (name == last, name)):
        if known.get(name) != there[name] or not (local / name).is_file():
            source = place / name
            files.write_atomic(local / name, lambda file, at=source: _pour(at, file))  # type: ignore[misc]
    if known != there:
        if _versions(place) != there:
            raise RemoteError(
                "it has changed while it was read",
                got=place.url,
                next_step="run the same command again",
            )
        files.write_json(local / COPIED, there)
    return True


def _versions(place: RemotePath) -> dict[str, str]:
    """The files at ``place`` that are read, and what tells one content of each from another."""
    forget(place)
    return {
        name: (place / name).version()
        for name in place.listing()
        if _is_safe(name) and _is_read(PurePosixPath(name))
    }


def _is_safe(name: str) -> bool:
    """Whether an object's name stays below the folder that it is copied to."""
    parts = name.split("/")
    return "\0" not in name and not any(part.startswith(".") or not part for part in parts)


def _is_read(name: PurePosixPath) -> bool:
    return name.parts[0] not in _LEFT_THERE and name.suffix in _READ


def _pour(source: RemotePath, file: BinaryIO) -> None:
    size = source.require_there()
    starts = range(0, size, _PIECE_BYTES)
    file.writelines(source.read_range(at, min(_PIECE_BYTES, size - at)) for at in starts)


def _send(local: Path, place: RemotePath, last: str) -> None:
    """Send the files below ``local``; ``last`` comes when all others are there."""
    sizes = {
        path.relative_to(local).as_posix(): path.stat().st_size
        for path in local.rglob("*")
        if path.is_file() and _is_safe(path.relative_to(local).as_posix())
    }
    forget(place)
    there = place.listing()
    data = (local / last).read_bytes()
    same = there.get(last) == len(data) and (place / last).read_range(0, len(data)) == data
    others = [name for name in sizes if name != last]
    missing = [name for name in others if not same or there.get(name) != sizes[name]]
    if same and not missing:
        return
    (place / last).unlink(missing_ok=True)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="send") as threads:
        list(threads.map(lambda name: (place / name).upload(local / name), missing))
    forget(place)
    there = place.listing()
    wrong = [name for name in others if there.get(name) != sizes[name]]
    if wrong:
        raise RemoteError(
            "a file is not there as it was sent",
            got=f"{place / wrong[0]}: {there.get(wrong[0], 'no')} bytes",
            allowed=f"{sizes[wrong[0]]} bytes",
            next_step="see who else writes there, and run the same command again",
        )
    (place / last).write_bytes(data)
