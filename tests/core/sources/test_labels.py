"""Labelled pools of every layout: class folders, tables, Parquet, tar shards, zips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mimic_core.base.errors import SourceError
from mimic_core.base.schema import Sample
from mimic_core.sources.images import decode_image
from mimic_core.sources.reading import read_image
from mimic_core.sources.source import Source
from mimic_core.sources.texts import label_of
from tests.core.sources_pools import (
    image_bytes,
    indexed,
    items,
    opened,
    samples,
    skips,
    write_files,
    write_image_rows,
    write_tar,
    write_zip,
)

PNG = image_bytes()
FOLDERS: dict[str, bytes | str] = {
    "cat/1.jpg": PNG,
    "cat/2.png": PNG,
    "dog/1.jpg": PNG,
    "dog/Thumbs.db": b"?",
    "README.md": "two classes",
    ".git/config": "hidden",
}
SPLIT: dict[str, bytes | str] = {
    "train/cat/1.jpg": PNG,
    "train/dog/1.jpg": PNG,
    "test/cat/1.jpg": PNG,
}


def labels(source: Source) -> dict[str, str | None]:
    """Labels by key."""
    return {one.key: one.label for one in items(source) if isinstance(one, Sample)}


def test_class_folders_label_their_images(tmp_path: Path) -> None:
    source = opened(write_files(tmp_path, FOLDERS))
    assert source.task == "labels"
    assert labels(source) == {"cat/1.jpg": "cat", "cat/2.png": "cat", "dog/1.jpg": "dog"}
    assert all(one.caption is None and one.meta == {} for one in samples(source))
    first = samples(source)[0]
    assert decode_image(read_image(source.root, first.image)).size == (6, 4)


def test_a_level_of_splits_becomes_a_column(tmp_path: Path) -> None:
    source = opened(write_files(tmp_path / "pool", SPLIT))
    frame, _ = indexed(source, tmp_path / "out")
    assert frame.select("key", "label", "split").rows() == [
        ("test/cat/1.jpg", "cat", "test"),
        ("train/cat/1.jpg", "cat", "train"),
        ("train/dog/1.jpg", "dog", "train"),
    ]


def test_a_zip_of_class_folders_has_the_samples_of_the_folder(tmp_path: Path) -> None:
    folder = opened(write_files(tmp_path / "pool", SPLIT))
    zipped = opened(write_zip(tmp_path / "p.zip", {f"pool/{k}": v for k, v in SPLIT.items()}))
    assert (folder.layout, zipped.layout) == ("folder", "zip")
    assert [(s.uid, s.label, s.meta) for s in samples(zipped)] == [
        (s.uid, s.label, s.meta) for s in samples(folder)
    ]


@pytest.mark.parametrize(
    "files",
    [
        {"train/1.jpg": PNG, "test/2.jpg": PNG},  # splits without classes
        {"1.jpg": PNG, "cat/2.jpg": PNG},  # a loose image
        {"pets/cat/1.jpg": PNG, "pets/dog/1.jpg": PNG, "cars/vw/1.jpg": PNG},  # nested
        {"cat/1.jpg": PNG, "dog/puppies/1.jpg": PNG},
        {"cat/1.jpg": PNG},  # one class is no choice
        {"cat/1.jpg": PNG, "cat/t.csv": "file_name,text\n1.jpg,x\n", "dog/1.jpg": PNG},
    ],
)
def test_folders_that_are_not_clearly_classes_are_refused(
    tmp_path: Path, files: dict[str, bytes | str]
) -> None:
    with pytest.raises(SourceError):
        opened(write_files(tmp_path, files))


def test_unlabelled_images_beside_class_folders_are_told_apart(tmp_path: Path) -> None:
    files = {f"train/{name}": data for name, data in FOLDERS.items()} | {"test/9.jpg": PNG}
    path = write_files(tmp_path / "pool", files)
    for task in (None, "labels"):
        with pytest.raises(SourceError) as caught:
            opened(path, **({"task": task} if task else {}))
        assert caught.value.next_step.endswith(f"with the classes: {path / 'train'}")
    assert set(labels(opened(path / "train")).values()) == {"cat", "dog"}
    with pytest.raises(SourceError, match=r"unpack it.*with the classes: train"):
        opened(write_zip(tmp_path / "p.zip", files))


def test_captions_beside_images_win_over_folders_unless_labels_are_asked_for(
    tmp_path: Path,
) -> None:
    # what img2dataset writes as files: the folders are shards
    files = {"00000/1.jpg": PNG, "00000/1.txt": "a cat", "00001/2.jpg": PNG}
    path = write_files(tmp_path, files)
    assert opened(path).task == "pairs"
    assert labels(opened(path, task="labels")) == {"00000/1.jpg": "00000", "00001/2.jpg": "00001"}


def test_class_folders_are_hostile_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    write_files(tmp_path / "secret", {"s.jpg": PNG})
    path = write_files(tmp_path / "pool", FOLDERS)
    (path / "cat" / "link.jpg").symlink_to(tmp_path / "secret" / "s.jpg")
    (path / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = opened(path, no_follow_links=True)
    assert {skip.key: skip.reason for skip in skips(found)} == {
        "cat/gone.jpg": "missing_image",
        "cat/link.jpg": "missing_image",
    }
    assert len(labels(found)) == 3
    followed = opened(path)
    assert [skip.key for skip in skips(followed)] == ["cat/gone.jpg"]
    assert len(labels(followed)) == 4


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("t.csv", "file_name,label,is_ok\na.png, cat ,true\nb.png,,false\nc.png,dog,true\n"),
        ("t.tsv", "file_name\tlabel\tis_ok\na.png\tcat\ttrue\nb.png\t \tfalse\nc.png\tdog\ttrue\n"),
        (
            "t.jsonl",
            """{"file_name": "a.png", "label": "cat", "is_ok": true}
            {"file_name": "b.png", "label": null, "is_ok": false}
            {"file_name": "c.png", "label": "dog", "is_ok": true}""",
        ),
    ],
)
def test_a_table_of_labels(tmp_path: Path, name: str, table: str) -> None:
    images = {"a.png": PNG, "b.png": PNG, "c.png": PNG}
    source = opened(write_files(tmp_path, {name: table, **images}))
    assert (source.task, source.label_column) == ("labels", "label")
    assert labels(source) == {"a.png": "cat", "c.png": "dog"}
    assert [(skip.key, skip.reason) for skip in skips(source)] == [("b.png", "empty_label")]
    assert samples_meta(source) == [{"is_ok": True}, {"is_ok": True}]


def samples_meta(source: Source) -> list[dict[str, Any]]:
    """The user's own columns."""
    return [one.meta for one in items(source) if isinstance(one, Sample)]


def test_a_parquet_table_of_labels_of_any_kind(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": PNG, "b.png": PNG})
    frame = pl.DataFrame(
        {
            "file_name": ["a.png", "b.png", "a.png", "b.png"],
            "text_label": ["cat", "dog", None, " "],
            "number": [3, 1, None, 2],
            "float": [3.0, None, 1.5, float("nan")],
            "flag": [True, False, None, True],
            "kind": pl.Series(["cat", "dog", None, "dog"], dtype=pl.Categorical),
        }
    )
    frame.write_parquet(tmp_path / "t.parquet")

    def read(column: str) -> list[str | None]:
        source = opened(tmp_path, label_column=column)
        return [
            one.label if isinstance(one, Sample) else f"! {one.reason}" for one in items(source)
        ]

    empty = "! empty_label"
    assert read("text_label") == ["cat", "dog", empty, empty]
    assert read("number") == ["3", "1", empty, "2"]
    assert read("float") == ["3", empty, "! bad_metadata", empty]
    assert read("flag") == ["true", "false", empty, "true"]
    assert read("kind") == ["cat", "dog", empty, "dog"]


def test_a_labelled_sample_keeps_its_uid_whatever_the_label(tmp_path: Path) -> None:
    images = {"a.png": PNG, "b.png": PNG}
    table = "file_name,clean,noisy\na.png,cat,dog\na.png,cat,cat\nb.png,dog,dog\n"
    path = write_files(tmp_path, {"t.csv": table, **images})
    clean, noisy = (samples(opened(path, label_column=name)) for name in ("clean", "noisy"))
    assert [one.uid for one in clean] == [one.uid for one in noisy]
    assert len({one.uid for one in clean}) == 3
    assert [one.label for one in noisy] == ["dog", "cat", "dog"]
    assert clean[0].meta == {"noisy": "dog"}


def hugging_face_rows(path: Path, names: list[str], numbers: list[int]) -> Path:
    """Parquet as the ``datasets`` library writes it: class numbers, names in the metadata."""
    table = pa.table(
        {
            "image": [{"bytes": PNG, "path": None}] * len(numbers),
            "label": pa.array(numbers, pa.int64()),
            "coarse": pa.array(numbers, pa.int64()),
        }
    )
    feature = {"names": names, "_type": "ClassLabel"}
    features = {"label": feature, "coarse": feature, "image": {"_type": "Image"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def test_class_numbers_become_the_names_in_the_schema(tmp_path: Path) -> None:
    path = hugging_face_rows(tmp_path / "a.parquet", ["cat", "dog"], [1, 0, -1, 2])
    source = opened(path)
    assert list(labels(source).values()) == ["dog", "cat"]
    assert [skip.reason for skip in skips(source)] == ["empty_label", "empty_label"]
    assert samples_meta(source) == [{"coarse": "dog"}, {"coarse": "cat"}]


@pytest.mark.parametrize("metadata", [b"no json", b"[]", b'{"info": null}', b'{"info": {}}'])
def test_foreign_schema_metadata_leaves_the_numbers(tmp_path: Path, metadata: bytes) -> None:
    path = hugging_face_rows(tmp_path / "a.parquet", ["cat"], [7, 8])
    table = pq.read_table(path).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, path)
    assert list(labels(opened(path)).values()) == ["7", "8"]


def test_embedded_images_with_a_label_column(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": PNG, "path": None}, "label": n, "note": "n"} for n in (4, None, 5)]
    source = opened(write_image_rows(tmp_path / "a.parquet", rows))
    assert labels(source) == {"000000000": "4", "000000002": "5"}
    assert [(skip.key, skip.reason) for skip in skips(source)] == [("000000001", "empty_label")]
    with pytest.raises(SourceError, match="cannot hold labels"):
        opened(source.root / "a.parquet", label_column="image")
    with pytest.raises(SourceError, match="no such column"):
        opened(source.root / "a.parquet", label_column="nothing")


def labelled(key: str, label: str | bytes | None, meta: object = None) -> list[tuple[str, bytes]]:
    """The members of one labelled sample."""
    members = [(f"{key}.png", PNG)]
    if label is not None:
        members.append((f"{key}.cls", label.encode() if isinstance(label, str) else label))
    if meta is not None:
        members.append((f"{key}.json", json.dumps(meta).encode()))
    return members


def test_tar_shards_with_cls_members(tmp_path: Path) -> None:
    members = [
        *labelled("a", "3\n", {"uid": "A" * 32, "label": "other"}),
        *labelled("b", " cat "),
        *labelled("c", None),
        *labelled("d", b"\xff"),
        *labelled("e", ""),
        *labelled("f", "3", [1]),
    ]
    source = opened(write_tar(tmp_path / "a.tar", members))
    assert source.task == "labels"
    assert labels(source) == {"a": "3", "b": "cat"}
    assert samples_meta(source) == [{"label": "other"}, {}]
    assert next(one.uid for one in items(source) if isinstance(one, Sample)) == "a" * 32
    assert {skip.key: skip.reason for skip in skips(source)} == {
        "c": "empty_label",
        "d": "bad_metadata",
        "e": "empty_label",
        "f": "bad_metadata",
    }


def test_a_field_of_the_json_may_be_the_label(tmp_path: Path) -> None:
    members = [*labelled("a", "3", {"breed": "pug", "age": 2}), *labelled("b", "3", {"age": 3})]
    source = opened(write_tar(tmp_path / "a.tar", members), label_column="breed")
    assert labels(source) == {"a": "pug"}
    assert samples_meta(source) == [{"age": 2}]
    assert [skip.reason for skip in skips(source)] == ["empty_label"]


def test_captions_and_labels_at_once_need_the_task(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [*labelled("a", "3"), ("a.txt", b"a cat")])
    table = write_files(
        tmp_path / "t", {"t.csv": "file_name,text,label\na.png,a cat,cat\n", "a.png": PNG}
    )
    rows = [{"image": PNG, "caption": "a cat", "label": 1}]
    parquet = write_image_rows(tmp_path / "p" / "a.parquet", rows)
    for path in (tar, table, parquet):
        with pytest.raises(SourceError, match="captions and labels") as caught:
            opened(path)
        assert "--task" in caught.value.next_step
        assert [one.caption for one in samples(opened(path, task="pairs"))] == ["a cat"]
        (one,) = samples(opened(path, task="labels"))
        assert (one.caption, one.label is None) == (None, False)


def test_a_vague_label_beside_captions_is_a_remark(tmp_path: Path) -> None:
    files = {"t.csv": "file_name,text,category\na.png,a cat,cat\n", "a.png": PNG}
    (one,) = samples(opened(write_files(tmp_path, files)))
    assert (one.caption, one.label, one.meta) == ("a cat", None, {"category": "cat"})


def test_contradicting_settings_are_refused(tmp_path: Path) -> None:
    path = write_files(tmp_path, FOLDERS)
    for wrong in (
        {"task": "pairs", "label_column": "x"},
        {"task": "labels", "caption_column": "x"},
        {"caption_column": "x", "label_column": "y"},
    ):
        with pytest.raises(SourceError, match="captions and for labels at once"):
            opened(path, **wrong)


def test_the_fingerprint_depends_on_the_label_column(tmp_path: Path) -> None:
    table = "file_name,one,two\na.png,cat,dog\n"
    path = write_files(tmp_path, {"t.csv": table, "a.png": PNG})
    found = {opened(path, label_column=name).fingerprint() for name in ("one", "two")}
    assert len(found) == 2


def test_the_index_holds_labels_and_no_captions(tmp_path: Path) -> None:
    table = "file_name,label,caption,clip_score\na.png,cat,words,0.5\nb.png,dog,,0.1\n"
    files = {"t.csv": table, "a.png": PNG, "b.png": PNG}
    source = opened(write_files(tmp_path / "pool", files), task="labels")
    frame, _ = indexed(source, tmp_path / "out")
    kept = frame.select("caption", "label", "source_caption", "source_clip_score").rows()
    assert kept == [(None, "cat", "words", 0.5), (None, "dog", None, 0.1)]


def test_nested_labels_are_refused() -> None:
    with pytest.raises(Exception, match="not text but list"):
        label_of(["cat"], "the field label")
