"""The quick header reader gives what ``tarfile`` gives, for every tar format."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_core.sources import tarmembers
from mimic_core.sources.tarmembers import Gap, Member

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]

names = st.one_of(
    st.text(st.sampled_from("ab./é漢"), min_size=1, max_size=12),
    st.text("xyz", min_size=9, max_size=20).map(lambda part: "/".join([part] * 12)),
).map(lambda name: name.strip("/") or "n")
members = st.lists(
    st.tuples(
        names,
        st.sampled_from(KINDS),
        st.binary(max_size=1500),
        st.sampled_from([0, 1700000000, 1700000000.25, -5]),
        st.sampled_from([0, 2**22]),  # the second user id does not fit its octal field
    ),
    max_size=5,
)


def tar_of(rows: list[tuple[str, bytes, bytes, Any, int]], form: int, **options: Any) -> bytes:
    """A tar with the given members; names that a format cannot hold are left out."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, **options) as tar:
        for name, kind, data, mtime, uid in rows:
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.uid = kind, mtime, uid
            info.linkname = "target" if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
            info.size = len(data) if kind in {tarfile.REGTYPE, tarfile.AREGTYPE} else 0
            try:
                tar.addfile(info, io.BytesIO(data))
            except ValueError:  # too long, or negative, for this format
                continue
    return out.getvalue()


def read_members(file: io.BytesIO) -> Iterator[Member | Gap]:
    """The members of a tar in memory."""
    return tarmembers.read_members(file, len(file.getvalue()))


def by_tarfile(data: bytes) -> list[Member]:
    """What the standard library says."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for info in tar:
            kind: Any = "folder" if info.isdir() else "link" if not info.isreg() else "file"
            found.append(Member(info.name, info.offset_data, info.size, kind))
    return found


@settings(max_examples=80, deadline=None)
@given(rows=members, form=st.sampled_from(FORMATS))
def test_members_are_those_of_tarfile(rows: list[Any], form: int) -> None:
    data = tar_of(rows, form)
    file = io.BytesIO(data)
    found = []
    for member in read_members(file):
        found.append(member)
        file.seek(7)  # the caller reads other parts in between
    assert found == by_tarfile(data)


def test_a_global_header_applies_to_all_that_follows() -> None:
    rows = [(name, tarfile.REGTYPE, b"x", 0, 0) for name in ("one", "two")]
    data = tar_of(rows, tarfile.PAX_FORMAT, pax_headers={"path": "renamed"})
    assert [m.name for m in by_tarfile(data)] == ["renamed", "renamed"]
    assert list(read_members(io.BytesIO(data))) == by_tarfile(data)


def test_sparse_and_device_members_are_special() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (("dev", tarfile.CHRTYPE), ("sparse", tarfile.GNUTYPE_SPARSE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
    found = [one for one in read_members(io.BytesIO(out.getvalue())) if isinstance(one, Member)]
    kinds = [(m.name, m.kind) for m in found]
    assert kinds == [("dev", "special"), ("sparse", "special")]


def test_the_oldest_kind_of_file_and_folder_is_read() -> None:
    rows = [("a.txt", tarfile.AREGTYPE, b"x", 0, 0), ("b/", tarfile.AREGTYPE, b"", 0, 0)]
    data = tar_of(rows, tarfile.USTAR_FORMAT)
    found = list(read_members(io.BytesIO(data)))
    assert found == by_tarfile(data)
    assert [m.kind for m in found if isinstance(m, Member)] == ["file", "folder"]


def test_a_pax_header_with_a_name_is_not_passed_over() -> None:
    rows = [("é" * 80, tarfile.REGTYPE, b"x", 1.5, 0)]
    data = tar_of(rows, tarfile.PAX_FORMAT)
    (found,) = read_members(io.BytesIO(data))
    assert isinstance(found, Member)
    assert found.name == "é" * 80


@settings(max_examples=60, deadline=None)
@given(rows=members, form=st.sampled_from(FORMATS), data=st.data())
def test_damage_never_gives_other_errors_or_endless_reading(
    rows: list[Any], form: int, data: st.DataObject
) -> None:
    content = bytearray(tar_of(rows, form))
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    found = list(read_members(io.BytesIO(bytes(content[:cut]))))
    files = [one for one in found if isinstance(one, Member) and one.kind == "file"]
    assert all(one.offset + one.size <= cut for one in files)


def test_a_member_that_is_cut_off_is_never_given() -> None:
    rows = [(name, tarfile.REGTYPE, bytes(600), 0, 0) for name in ("one", "two")]
    data = tar_of(rows, tarfile.USTAR_FORMAT)
    reader = read_members(io.BytesIO(data[: 512 + 1024 + 512 + 599]))
    assert next(reader) == Member("one", 512, 600)
    assert list(reader) == [Gap(512 + 1024, None, "member two is cut off")]


def test_no_end_mark_is_damage() -> None:
    data = tar_of([("a", tarfile.REGTYPE, b"x", 0, 0)], tarfile.USTAR_FORMAT)
    reader = read_members(io.BytesIO(data[:1024]))
    assert next(reader).name == "a"
    (gap,) = reader
    assert gap == Gap(1024, None, "no valid header and no end-of-archive mark at byte 1024")
