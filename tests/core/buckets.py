"""A bucket of a real S3 server on loopback, and a client of it that fails on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from mimic_core.base import blocks, remote, storage

BUCKET = "pools"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server that is started once for all tests of a process."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, an empty cache, and no pauses."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        blocks.CACHE_VARIABLE: str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket=BUCKET)
    found = Bucket(client, tmp_path / "cache")
    monkeypatch.setattr(storage, "_PAUSE", found.pauses.append)
    monkeypatch.setattr(storage, "filesystem", found.filesystem(storage.filesystem))
    remote._KNOWN.clear()  # as in a process of its own
    yield found
    for name in found.names():
        found.remove(name)
    found.end_parts()


class Bucket:
    """What is put there, and what is asked of it; ``fault`` may raise, or shorten an answer.

    ``write_fault`` is told the URL of each object before it is written, and may raise; those whose
    URL is in ``lost`` are said to be written, and are not.
    """

    def __init__(self, client: Any, cache: Path) -> None:
        self._client = client
        self.cache = cache
        self.pauses: list[float] = []
        self.asked: list[tuple[str, int, int]] = []
        self.fault: Callable[[], Callable[[bytes], bytes] | None] = lambda: None
        self.lost: set[str] = set()
        self.write_fault: Callable[[str], None] = lambda _: None

    def put(self, folder: Path, prefix: str = "") -> str:
        """Put a folder or a file; returns its URL."""
        files = [folder] if folder.is_file() else [p for p in folder.rglob("*") if p.is_file()]
        base = folder.parent if folder.is_file() else folder
        for path in files:
            key = f"{prefix}/{path.relative_to(base).as_posix()}".lstrip("/")
            self._client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        return f"s3://{BUCKET}/{prefix}" + (f"/{folder.name}" if folder.is_file() else "")

    def names(self) -> list[str]:
        """All objects."""
        found = self._client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [one["Key"] for one in found]

    def write(self, name: str, data: bytes) -> None:
        """Write an object, whatever its name."""
        self._client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def read(self, name: str) -> bytes:
        """The content of an object."""
        data: bytes = self._client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return data

    def versions(self) -> list[tuple[str, str, Any]]:
        """All objects with what changes when they are written again."""
        found = self._client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [(one["Key"], one["ETag"], one["LastModified"]) for one in found]

    def begin_parts(self, name: str) -> None:
        """Begin an upload in parts, and leave it."""
        self._client.create_multipart_upload(Bucket=BUCKET, Key=name)

    def parts(self) -> list[str]:
        """The objects whose uploads in parts have not ended."""
        return [one["Key"] for one in self._uploads()]

    def end_parts(self) -> None:
        """End all uploads in parts."""
        for one in self._uploads():
            known = {"Key": one["Key"], "UploadId": one["UploadId"]}
            self._client.abort_multipart_upload(Bucket=BUCKET, **known)

    def _uploads(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]]
        found = self._client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return found

    def remove(self, name: str) -> None:
        """Delete an object."""
        self._client.delete_object(Bucket=BUCKET, Key=name)

    def filesystem(self, real: Callable[[str], Any]) -> Callable[[str], Any]:
        """The file system as it is, but for ``fault``; what is asked of it is written down."""
        outer = self

        class Watched:
            def __init__(self, files: Any) -> None:
                self._files = files

            def __getattr__(self, name: str) -> Any:
                return getattr(self._files, name)

            def cat_file(self, url: str, start: int, end: int) -> bytes:
                outer.asked.append((url, start, end))
                change = outer.fault()
                data: bytes = self._files.cat_file(url, start=start, end=end)
                return data if change is None else change(data)

            def pipe_file(self, url: str, data: bytes) -> None:
                outer.write_fault(url)
                self._files.pipe_file(url, data)

            def put_file(self, file: str, url: str) -> None:
                outer.write_fault(url)
                if url not in outer.lost:
                    self._files.put_file(file, url)

        return lambda scheme: Watched(real(scheme))
