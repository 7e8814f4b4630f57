"""Mimicscope: score image-text data by how far each sample pulls a model to a better one.

The public Python API, module by module (importing this package loads none of them):

- ``mimic_core.pipeline``   score a pool into a run directory: ``score_pool(config, runs_root=...)``
- ``mimic_core.mimic``      task vector, forward-mode scores and weights for your own training loop
- ``mimic_core.losses``     per-sample CLIP, SigLIP and cross-entropy losses
- ``mimic_core.models``     load a model or a reference model
- ``mimic_core.sources``    open a pool of any layout: ``open_source(config)``
- ``mimic_core.probe``, ``mimic_core.score``   the scorers behind ``score_pool``
- ``mimic_core.runs``       open a finished run
- ``mimic_core.table``      a run as one polars row per sample
- ``mimic_core.filters``    recipes and selections
- ``mimic_core.selections`` a recipe applied to a run on disk, of any size
- ``mimic_core.history``    a run's scores as arrays of steps by samples
- ``mimic_core.ensemble``   the steps of a run vote on every sample
- ``mimic_core.cutoffs``    one cutoff as score, percentile and count
- ``mimic_core.dynamics``   how scores move over the epochs: flips, bands, heat map
- ``mimic_core.export``     selections as files
- ``mimic_core.prove``      does a recipe help? ``prove(run, recipes, config)``
- ``mimic_core.layout``     the 2-D map
- ``mimic_core.stats``      histograms, detection, retention, agreement
- ``mimic_core.jobs``       detached background jobs
"""

__version__ = "0.1.0"
