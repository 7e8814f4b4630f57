"""Files of Hugging Face repositories, and the few of them that a tokenizer or text tower may see.

Transformers reads whatever a folder offers: code, pickles, names of further files. What it gets
from here is a folder of our own with data alone: tokenizers and vocabularies by name, and configs
from which every word that could run code or open another file is gone or refused.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mimic_core.base.errors import ModelError
from mimic_core.models.checkpoints import PREFERRED
from mimic_core.models.configs import RUNS_CODE, read_json

_TOKENIZER_CONFIGS = ("tokenizer_config.json", "config.json")
_TOKENIZER_DATA = (
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
MAX_TOKENIZER_BYTES = 200_000_000
# Settings of transformers' configs that fetch or compile code for a model's layers.
_FETCHES_CODE = ("attn_implementation", "experts_implementation", "quantization_config", "kernel")


def repository_files(repository: str, config: str) -> tuple[Path, Path]:
    """Config and weights of a repository, from the cache or downloaded: safetensors first.

    Raises:
        ModelError: They cannot be had.
    """
    return _first(repository, (config,)), _first(repository, PREFERRED)


def _first(repository: str, names: Iterable[str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    name, _, revision = repository.partition("@")
    missing: Exception | None = None
    for file in names:
        try:
            return Path(hf_hub_download(name, file, revision=revision or None))
        except EntryNotFoundError as error:
            missing = missing or error
        except Exception as error:  # networks, sign-ins and caches fail in many ways
            raise _not_there(repository, error) from error
    raise _not_there(repository, missing) from missing


def _not_there(repository: str, error: Exception | None) -> ModelError:
    reason = str(error).strip().splitlines()
    return ModelError(
        f"the repository's files cannot be had ({reason[0][:300] if reason else repr(error)})",
        got=repository,
        allowed=f"a repository with a config and one of {', '.join(PREFERRED[:3])}",
        next_step="check its name and the network, or fetch the files on another machine and name "
        "their folder",
    )


def tokenizer_folder(source: str) -> str:
    """A folder with the tokenizer of ``source``, a local folder or a repository, and no code.

    Raises:
        ModelError: It cannot be had, or its configs ask for code.
    """
    folder = _folder(source, (*_TOKENIZER_CONFIGS, *_TOKENIZER_DATA))
    staged = _staging()
    for name in _TOKENIZER_CONFIGS:
        if (folder / name).exists():
            config = _harmless(read_json(folder / name, "tokenizer's config"), folder / name)
            (staged / name).write_text(json.dumps(config))
    for name in _TOKENIZER_DATA:
        file = folder / name
        if not file.exists():
            continue
        if not file.is_file() or file.stat().st_size > MAX_TOKENIZER_BYTES:
            raise ModelError(
                "the tokenizer's data are not a regular file of moderate size",
                got=str(file),
                allowed=f"at most {MAX_TOKENIZER_BYTES:,} bytes",
                next_step="use another checkpoint",
            )
        (staged / name).symlink_to(file.resolve())
    return str(staged)


def text_tower_folder(source: str) -> str:
    """A folder with the config of a text tower of transformers' own, and no weights.

    Raises:
        ModelError: It cannot be had, is not of a kind that open_clip knows, or asks for code.
    """
    from open_clip.hf_configs import arch_dict
    from transformers import CONFIG_MAPPING

    file = _folder(source, ("config.json",)) / "config.json"
    written = _harmless(read_json(file, "text tower's config"), file)
    kind = str(written.get("model_type"))
    if kind not in arch_dict:
        raise ModelError(
            "the text tower is of a kind that cannot be used",
            got=kind,
            allowed=", ".join(sorted(arch_dict)),
            next_step="use a checkpoint with one of these text towers",
        )
    known = CONFIG_MAPPING[kind]().to_dict()
    staged = _staging()
    plain = {key: value for key, value in written.items() if key in known}
    (staged / "config.json").write_text(json.dumps({**plain, "model_type": kind}))
    return str(staged)


def _folder(source: str, names: tuple[str, ...]) -> Path:
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    name, _, revision = source.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(names)))
    except Exception as error:  # networks, sign-ins and caches fail in many ways
        raise ModelError(
            "the model's tokenizer or text tower cannot be had "
            f"({(str(error).strip() or repr(error)).splitlines()[0][:300]})",
            got=source,
            allowed="a folder, or a repository that can be reached or is in the cache",
            next_step="check the network, or make its files available in the Hugging Face cache",
        ) from error


def _harmless(written: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """A config without the words that name files; with those that ask for code it is refused."""
    for key, value in written.items():
        asks = key in RUNS_CODE or any(word in key for word in _FETCHES_CODE)
        if asks and value not in (None, False, {}, ""):
            raise ModelError(
                f"a config of the model asks for code to be run: {key}",
                got=str(file),
                allowed="tokenizers and text towers that transformers has itself",
                next_step="Mimicscope never runs a model's own code: use another checkpoint",
            )
    return {
        key: value
        for key, value in written.items()
        if not (key in RUNS_CODE or key.endswith(("_file", "name_or_path")))
        and not any(word in key for word in _FETCHES_CODE)
    }


@cache
def _kept() -> list[tempfile.TemporaryDirectory[str]]:
    """Folders that last as long as the process: tokenizers may open their files again."""
    return []


def _staging() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="mimicscope-")
    _kept().append(folder)
    return Path(folder.name)
