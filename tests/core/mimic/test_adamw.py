"""Our optimiser is torch's, to the bit."""

from __future__ import annotations

import torch

from mimic_core.mimic.adamw import AdamW


def test_steps_equal_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(7, 5, generator=generator)
    ours, theirs = start.clone(), start.clone().requires_grad_(True)
    mine = AdamW(ours, learning_rate=1e-2, weight_decay=0.1)
    reference = torch.optim.AdamW([theirs], lr=1e-2, weight_decay=0.1)
    for _ in range(20):
        gradient = torch.randn(7, 5, generator=generator)
        mine.step(gradient)
        theirs.grad = gradient
        reference.step()
    assert not torch.equal(ours, start)
    assert torch.equal(ours, theirs.detach())
