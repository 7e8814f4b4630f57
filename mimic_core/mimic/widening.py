"""Float64 for sums and checks, also of tensors on devices that have none."""

from __future__ import annotations

from torch import Tensor

# Apple's GPUs compute in float32 at most; to ask for more there is an error.
_WITHOUT_FLOAT64 = frozenset({"mps"})


def widened(tensor: Tensor) -> Tensor:
    """``tensor`` in float64 without its graph; on the CPU where its device has no float64."""
    kept = tensor.detach()
    return (kept.cpu() if kept.device.type in _WITHOUT_FLOAT64 else kept).double()
