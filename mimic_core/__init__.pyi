from .base.config import RunConfig as RunConfig
from .export.record import replay as replay
from .filters.ensembles.ensemble import ensemble as ensemble
from .filters.recipe import Recipe as Recipe
from .filters.recipe import Selection as Selection
from .filters.recipe import apply as apply
from .filters.selections import select as select
from .jobs.worker import start_job as start_job
from .mimic.losses import clip_losses as clip_losses
from .mimic.losses import cross_entropy_losses as cross_entropy_losses
from .mimic.losses import siglip_losses as siglip_losses
from .mimic.scores import mimic_scores as mimic_scores
from .mimic.scores import mimic_weights as mimic_weights
from .mimic.scores import task_vector as task_vector
from .models.load import load_model as load_model
from .proofs.prove import prove as prove
from .runs.history import run_history as run_history
from .runs.layout import ensure_map as ensure_map
from .runs.run import open_run as open_run
from .runs.table import run_table as run_table
from .scoring.pipeline import score_pool as score_pool
from .scoring.training.train import train_pool as train_pool
from .sources.joining import join_columns as join_columns
from .sources.joining import remove_join as remove_join
from .sources.opening import open_source as open_source

__version__: str
