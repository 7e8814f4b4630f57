"""Classes described in words: the mean text embedding of several prompts, as OpenAI does it.

Letters: C classes, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mimic_core.base.errors import ModelError
from mimic_core.models import clip
from mimic_core.models.load import LoadedModel

DEFAULT_PROMPTS = ("a photo of a {}",)
_BATCH = 256  # texts in one forward pass


def spoken_class(label: str) -> str:
    """A label as it is put into a prompt: underscores are read as spaces."""
    return " ".join(label.replace("_", " ").split())


def class_embeddings(
    model: LoadedModel, classes: Sequence[str], prompts: Sequence[str], device: torch.device
) -> Tensor:
    """Unit embeddings (C, D), float32: of each class, the mean over the prompts' unit embeddings.

    Raises:
        ModelError: The model has no text tower.
    """
    if model.tokenizer is None:
        raise ModelError(
            "a model without a text tower cannot describe classes in words",
            got=model.spec.text,
            allowed="an open_clip model",
            next_step="leave --prompt out, and give --trusted or --reference-head",
        )
    texts = [prompt.format(spoken_class(name)) for name in classes for prompt in prompts]
    parts = []
    with torch.no_grad():
        for start in range(0, len(texts), _BATCH):
            tokens = model.tokenizer(texts[start : start + _BATCH]).to(device)
            parts.append(clip.encode_text(model.module, tokens, normalize=True).float())
        embeddings = torch.cat(parts).view(len(classes), len(prompts), -1).mean(1)
    return F.normalize(embeddings, dim=-1)
