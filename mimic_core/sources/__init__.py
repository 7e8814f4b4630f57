"""Pools of any layout as one stream of samples and skips, and their images by locator.

- ``open_source(config)``            pick the layout and open it
- ``build_index(source, ...)``       draw the sample and write the index tables of a feature set
- ``preview(source, n)``             the first samples, to look at
- ``read_image`` / ``decode_image``  bytes by locator, then an RGB image

One layout, one file: ``webdataset`` (tar shards), ``folder``, ``archive`` (zip), ``parquet``.
"""

from mimic_core.sources.images import DECODER, ImageError, decode_image, read_image
from mimic_core.sources.index import build_index, preview
from mimic_core.sources.opening import open_source
from mimic_core.sources.source import Source

__all__ = [
    "DECODER",
    "ImageError",
    "Source",
    "build_index",
    "decode_image",
    "open_source",
    "preview",
    "read_image",
]
