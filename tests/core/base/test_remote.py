"""Files in object storage: ranges, the cache, and what comes of connections that fail."""

from __future__ import annotations

import io
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.base import blocks, remote, storage
from mimic_core.base.blocks import BlockCache
from mimic_core.base.errors import ConfigError, RemoteError, SourceError
from mimic_core.base.remote import RemotePath, as_place, is_remote
from tests.core.buckets import Bucket, bucket, s3_server

__all__ = ["bucket", "s3_server"]  # fixtures

DATA = np.random.default_rng(0).bytes(3_300_000)  # four blocks


@pytest.fixture
def stored(bucket: Bucket, tmp_path: Path) -> RemotePath:
    (tmp_path / "x.bin").write_bytes(DATA)
    return RemotePath.of(bucket.put(tmp_path / "x.bin", "a/b"))


def test_urls_are_paths_that_are_joined_and_pickled_and_nothing_else_is_one() -> None:
    path = as_place("s3://bucket/some/folder")
    assert isinstance(path / "shard.tar", RemotePath)
    assert str(path / "shard.tar") == "s3://bucket/some/folder/shard.tar"
    assert (path / "shard.tar").parent == path
    assert pickle.loads(pickle.dumps(path)) == path  # noqa: S301 - our own
    assert path.resolve() == path.expanduser() == path
    assert as_place(str(path)) == path
    assert not isinstance(as_place("s3/bucket"), RemotePath)
    assert [
        is_remote(one) for one in ("hf://datasets/a", "https://a/b.tar", "/s3://a", "c:/a")
    ] == [
        True,
        True,
        False,
        False,
    ]


def test_a_file_is_read_in_ranges_and_each_block_is_fetched_once(
    bucket: Bucket, stored: RemotePath
) -> None:
    assert stored.stat().st_size == len(DATA)
    assert (stored.is_file(), stored.is_dir(), stored.parent.is_dir()) == (True, False, True)
    assert not (stored.parent / "gone").exists()
    assert stored.read_range(2_000_000, 1000) == DATA[2_000_000:2_001_000]
    block = remote.BLOCK
    assert [(start, stop) for _, start, stop in bucket.asked] == [(block, 2 * block)]
    with stored.open("rb") as file:
        file.seek(-10, io.SEEK_END)
        assert file.read() == DATA[-10:]
        file.seek(0)
        assert file.read() == DATA
    spans = [span for _, *span in bucket.asked]
    assert sum(stop - start for start, stop in spans) == len(DATA)
    before = len(bucket.asked)
    assert stored.read_range(0, len(DATA)) == DATA
    assert len(bucket.asked) == before


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 2500)), max_size=6))
def test_whatever_is_asked_is_what_is_there(spans: list[tuple[int, int]]) -> None:
    data = DATA[:5000]
    info = remote.Info(len(data), "one")
    kept: dict[tuple[str, int], bytes] = {}

    class Kept(BlockCache):
        def get(self, key: str, number: int, length: int) -> bytes | None:
            found = kept.get((key, number))
            return found if found is not None and len(found) == length else None

        def has(self, key: str, number: int) -> bool:
            return (key, number) in kept

        def put(self, key: str, number: int, data: bytes) -> None:
            kept[key, number] = data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "BLOCK", 512)
        patch.setattr(remote, "_fetch", lambda _, start, stop: data[start:stop])
        patch.setattr(blocks, "kept_here", lambda: Kept(Path(), 1))
        patch.setitem(remote._KNOWN, "s3://a/b", info)
        path = RemotePath.of("s3://a/b")
        with path.open("rb") as file:
            for start, length in spans:
                file.seek(start)
                assert file.read(length) == data[start : start + length]
                if start + length <= len(data):
                    assert path.read_range(start, length) == data[start : start + length]


@pytest.mark.parametrize(
    "failure",
    [
        OSError("500 Internal Server Error"),
        TimeoutError("slow"),
        ConnectionError("reset by peer"),
    ],
)
def test_a_request_that_fails_is_repeated_with_growing_pauses(
    bucket: Bucket, stored: RemotePath, failure: Exception
) -> None:
    left = [failure] * 3

    def fail() -> None:
        if left:
            raise left.pop()

    bucket.fault = fail
    assert stored.read_range(10, 20) == DATA[10:30]
    assert len(bucket.pauses) == 3
    for pause, longest in zip(bucket.pauses, (0.5, 1, 2), strict=True):
        assert longest / 2 <= pause <= longest


def test_an_answer_that_is_cut_off_is_asked_for_again(bucket: Bucket, stored: RemotePath) -> None:
    cuts = [lambda data: data[:100], lambda data: data[:-1]]
    bucket.fault = lambda: cuts.pop() if cuts else None
    assert stored.read_range(0, 2000) == DATA[:2000]
    assert len(bucket.pauses) == 2


def test_what_fails_for_good_says_so_and_is_no_error_of_a_file(
    bucket: Bucket, stored: RemotePath
) -> None:
    def fail() -> None:
        raise OSError("503 Slow Down")

    bucket.fault = fail
    with pytest.raises(
        RemoteError, match=r"does not answer .503 Slow Down.*tried 6 times"
    ) as found:
        stored.read_range(0, 10)
    assert not isinstance(found.value, OSError)
    assert len(bucket.asked) == storage.ATTEMPTS
    assert len(bucket.pauses) == storage.ATTEMPTS - 1
    assert sum(bucket.pauses) < 16


def test_an_object_that_vanishes_or_shrinks_ends_the_work(
    bucket: Bucket, stored: RemotePath
) -> None:
    assert stored.stat().st_size
    bucket.remove("a/b/x.bin")
    with pytest.raises(RemoteError, match="no longer where it was"):
        stored.read_range(0, 10)
    remote._KNOWN.clear()
    with pytest.raises(RemoteError, match="no longer where it was"):
        stored.require_there()
    assert bucket.pauses == []  # nothing is gained by asking again
    remote._KNOWN[stored.url] = remote.Info(5, "")
    with pytest.raises(RemoteError, match="no longer where it was"):
        stored.read_range(0, 10)


def test_what_needs_a_file_of_this_machine_is_refused() -> None:
    path = RemotePath.of("s3://a/b.zip")
    with pytest.raises(RemoteError, match="own disk only"):
        os.fspath(path)
    with pytest.raises(RemoteError, match="only read here"):
        path.open("wb")


def test_an_error_survives_the_way_from_a_worker() -> None:
    one = SourceError("a", got="b", allowed="c", next_step="d")
    two = pickle.loads(pickle.dumps(one))  # noqa: S301 - our own
    assert (type(two), two.problem, two.got, two.allowed, two.next_step, str(two)) == (
        SourceError,
        one.problem,
        one.got,
        one.allowed,
        one.next_step,
        str(one),
    )


def test_the_cache_keeps_to_its_limit_and_drops_what_was_used_longest_ago(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 1000)
    for number in range(10):
        cache.put("key", number, bytes(100))
        os.utime(cache._path("key", number), (number, number))
    assert cache.get("key", 0, 100) == bytes(100)  # touched now
    cache.put("key", 10, bytes(100))
    cache.sweep()
    there = {number for number in range(11) if cache._path("key", number).exists()}
    assert there == {0, 3, 4, 5, 6, 7, 8, 9, 10}
    assert cache.get("key", 3, 99) is None  # of another length


def test_many_may_write_and_sweep_one_cache_at_once(tmp_path: Path) -> None:
    caches = [BlockCache(tmp_path, 20_000) for _ in range(4)]

    def work(worker: int) -> None:
        for number in range(60):
            caches[worker].put("key", number, bytes([number]) * 1000)
            for other in range(60):
                found = caches[worker].get("key", other, 1000)
                assert found is None or found == bytes([other]) * 1000

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    caches[0].sweep()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 20_000


def test_a_cache_that_cannot_be_written_keeps_nothing_and_all_is_read(
    bucket: Bucket, stored: RemotePath
) -> None:
    bucket.cache.write_text("no folder")
    assert stored.read_range(5, 5) == stored.read_range(5, 5) == DATA[5:10]
    assert len(bucket.asked) == 2


def test_the_limit_is_gib_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(blocks.LIMIT_VARIABLE, "20")  # put back at the end
    blocks.limit_cache(0.5)
    assert blocks._limit_bytes() == 1 << 29
    monkeypatch.setenv(blocks.LIMIT_VARIABLE, "much")
    with pytest.raises(ConfigError, match="limit of the cache"):
        blocks._limit_bytes()
