"""Mimicscope: score image-text data by how far each sample pulls a model to a better one.

The public Python API, module by module (importing this package loads none of them):

- ``mimic_core.scoring.pipeline``   ``score_pool(config, runs_root=...)``: a pool into a run
- ``mimic_core.mimic.scores``      task vector, scores and weights for your own loop
- ``mimic_core.mimic.losses``     per-sample CLIP, SigLIP and cross-entropy losses
- ``mimic_core.models.load``     load a model or a reference model
- ``mimic_core.sources``    open a pool of any layout: ``open_source(config)``
- ``mimic_core.scoring.probe``, ``mimic_core.scoring.snapshot``   the scorers behind ``score_pool``
- ``mimic_core.runs.run``       open a finished run
- ``mimic_core.runs.table``      a run as one polars row per sample
- ``mimic_core.filters.recipe``    recipes and selections
- ``mimic_core.filters.selections`` a recipe applied to a run on disk, of any size
- ``mimic_core.runs.history``    a run's scores as arrays of steps by samples
- ``mimic_core.filters.ensembles.ensemble``   the steps of a run vote on every sample
- ``mimic_core.stats.cutoffs``    one cutoff as score, percentile and count
- ``mimic_core.stats.dynamics``   how scores move over the epochs: flips, bands, heat map
- ``mimic_core.export.export``     selections as files
- ``mimic_core.proofs.prove``      does a recipe help? ``prove(run, recipes, config)``
- ``mimic_core.runs.layout``     the 2-D map
- ``mimic_core.stats``      histograms, detection, retention, agreement
- ``mimic_core.jobs.worker``       detached background jobs
"""

__version__ = "0.1.0"
