"""Mimicscope: score image-text data by how far each sample pulls a model to a better one.

The public Python API is listed in ``__init__.pyi``: ``from mimic_core import score_pool``. A name
is imported when it is first asked for, so importing this package loads neither torch nor polars.
What else a room offers is listed in its own ``__init__``, such as that of ``mimic_core.stats``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
