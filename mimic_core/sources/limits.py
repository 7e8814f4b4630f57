"""How much of a file is read before it is refused: one place, stated in ``docs/limits.md``.

Pools come from anywhere, so nothing in one may take memory or time without bound. Each limit may be
changed for a machine by an environment variable of its name with ``MIMICSCOPE_`` in front; worker
processes inherit it.
"""

from __future__ import annotations

import os

from mimic_core.base.errors import ConfigError

_MIB = 1024 * 1024


def _limit(name: str, default: int) -> int:
    """The limit ``name``: a positive whole number from the environment, else ``default``."""
    text = os.environ.get(f"MIMICSCOPE_{name}")
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigError(
            "a limit of this machine is no positive whole number",
            got=f"MIMICSCOPE_{name}={text}",
            allowed=f"for example {default}, which is the default",
            next_step="correct or unset that variable",
        )
    return int(text)


# One image.
MAX_PIXELS = _limit("MAX_PIXELS", 100_000_000)  # 300 MB as RGB, in every worker
MAX_IMAGE_BYTES = _limit("MAX_IMAGE_BYTES", 256 * _MIB)
MAX_SCANS = _limit("MAX_SCANS", 100)  # of a progressive JPEG; encoders write about ten
MAX_DECODE_SECONDS = _limit("MAX_DECODE_SECONDS", 30)
# Pixels times scans from which an image is decoded in a process that can be killed. Below it no
# decoder takes more than a second or two.
GUARDED_PIXELS = _limit("GUARDED_PIXELS", 50_000_000)
GUARDED_BYTES = _limit("GUARDED_BYTES", 32 * _MIB)  # likewise
MAX_DECODE_BYTES = _limit("MAX_DECODE_BYTES", 3072 * _MIB)  # memory of that process

# One sample's texts, and one cell of a table.
MAX_TEXT_BYTES = _limit("MAX_TEXT_BYTES", 4 * _MIB)
MAX_CAPTION_BYTES = _limit("MAX_CAPTION_BYTES", 16 * 1024)  # tokenizers are quadratic in a word
MAX_FIELDS = _limit("MAX_FIELDS", 256)  # metadata fields of one sample

# Containers.
MAX_TABLE_BYTES = _limit("MAX_TABLE_BYTES", 1024 * _MIB)  # of a zip; it is held in memory
MAX_ENTRIES = _limit("MAX_ENTRIES", 1_000_000)  # of a zip
MAX_UNPACKED_BYTES = _limit("MAX_UNPACKED_BYTES", 1024 * 1024 * _MIB)  # of a zip
MAX_RATIO = _limit("MAX_RATIO", 200)  # deflate reaches 1,032; photos stay near 1, tables near 10
MAX_HEADER_BYTES = _limit("MAX_HEADER_BYTES", _MIB)  # a long name or pax header of a tar
MAX_COLUMN_BYTES = _limit("MAX_COLUMN_BYTES", 2048 * _MIB)  # a text column of a Parquet row group

# Files of columns or lists by uid, which are held in memory.
MAX_JOIN_BYTES = _limit("MAX_JOIN_BYTES", 16 * 1024 * _MIB)
MAX_UID_FILE = _limit("MAX_UID_FILE", 1024 * _MIB)  # thirty million uids as text
