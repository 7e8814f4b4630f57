"""Forward-mode differentiation of a module along a direction in some of its parameters.

Dual tensors take the place of the parameters while the forward pass runs (method.md section 4); the
dual level is left before anything else happens, so outputs can be sent backward as usual.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

# Models for which fused attention refused a tangent once, so that the failed try is paid once.
_needs_math: weakref.WeakKeyDictionary[nn.Module, set[frozenset[str]]] = weakref.WeakKeyDictionary()


def directional_derivative(
    model: nn.Module,
    direction: Mapping[str, Tensor],
    forward: Callable[[], tuple[Tensor, ...]],
) -> list[tuple[Tensor, Tensor | None]]:
    """Outputs of ``forward`` with their derivatives along ``direction`` in the parameters.

    Only the named parameters carry a tangent: everything upstream is a plain forward pass. Fused
    attention kernels have no forward-mode formula, so where a tangent meets one the pass is
    repeated, and from then on made, with the plain kernel.

    Args:
        model: Holds the parameters; unchanged on return.
        direction: Exact parameter names to tangents of the parameters' shapes.
        forward: Runs ``model`` and returns tensors.

    Returns:
        One (value, tangent) for each output; the tangent (detached, the value's shape) is None
        where the output does not depend on the named parameters.
    """
    known = _needs_math.setdefault(model, set())
    layers = frozenset(direction)
    if layers not in known:
        try:
            return _one_pass(model, direction, forward)
        except (NotImplementedError, RuntimeError) as error:
            if not _is_missing_formula(error):
                raise
            known.add(layers)
    with _plain_attention():
        return _one_pass(model, direction, forward)


def _one_pass(
    model: nn.Module,
    direction: Mapping[str, Tensor],
    forward: Callable[[], tuple[Tensor, ...]],
) -> list[tuple[Tensor, Tensor | None]]:
    with _outside_inference_mode(), forward_ad.dual_level():
        with _dual_parameters(model, direction), _tangents_in_kind(model):
            outputs = forward()
        pairs = [forward_ad.unpack_dual(out) for out in outputs]  # type: ignore[no-untyped-call]
        return [(p.primal, None if p.tangent is None else p.tangent.detach()) for p in pairs]


@contextmanager
def _outside_inference_mode() -> Iterator[None]:
    """Inference mode keeps no tangents; without gradients its tensors can be used outside it."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(mode=False), torch.no_grad():
        yield


@contextmanager
def _dual_parameters(model: nn.Module, tangents: Mapping[str, Tensor]) -> Iterator[None]:
    """Put dual tensors in the place of parameters; a tied parameter is replaced at every name."""
    tangent_of = {id(model.get_parameter(name)): t for name, t in tangents.items()}
    swapped: list[tuple[nn.Module, str, nn.Parameter]] = []
    duals: dict[int, Tensor] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():  # noqa: SLF001
            if parameter is not None and id(parameter) in tangent_of:
                swapped.append((module, name, parameter))
    try:
        for module, name, parameter in swapped:
            key = id(parameter)
            if key not in duals:
                tangent = tangent_of[key].to(parameter)
                duals[key] = forward_ad.make_dual(parameter, tangent)  # type: ignore[no-untyped-call]
            # A dual tensor is no Parameter, so it goes past nn.Module's own setter.
            module._parameters[name] = duals[key]  # type: ignore[assignment]  # noqa: SLF001
        yield
    finally:
        for module, name, parameter in swapped:
            module._parameters[name] = parameter  # noqa: SLF001


@contextmanager
def _tangents_in_kind(model: nn.Module) -> Iterator[None]:
    """Keep tangents in the dtype of their values.

    Under autocast on the CPU a norm with float32 weights returns bfloat16 values whose tangents are
    float32, and the next matrix product refuses the mixture (seen in torch 2.15).
    """

    def match(_: nn.Module, __: object, output: object) -> object:
        if not isinstance(output, Tensor) or output.dtype not in (torch.bfloat16, torch.float16):
            return output
        value, tangent = forward_ad.unpack_dual(output)  # type: ignore[no-untyped-call]
        if tangent is None or tangent.dtype == value.dtype:
            return output
        return forward_ad.make_dual(value, tangent.to(value.dtype))  # type: ignore[no-untyped-call]

    hooks = [leaf.register_forward_hook(match) for leaf in _eager_leaves(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _eager_leaves(module: nn.Module) -> Iterator[nn.Module]:
    """Modules without children, but those inside a compiled one: a hook would compile it again."""
    if getattr(module, "_compiled_call_impl", None) is not None:
        return
    children = list(module.children())
    if not children:
        yield module
    for child in children:
        yield from _eager_leaves(child)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Math attention and no fused multi-head path inside; both are as before on leaving."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _is_missing_formula(error: Exception) -> bool:
    text = str(error)
    return "forward AD" in text or "forward-mode" in text or "jvp" in text.lower()
