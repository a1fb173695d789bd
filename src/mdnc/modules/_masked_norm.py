"""Norms of padded batches that leave out the padding, and keep no more for backward than torch's own."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mdnc.modules import _plan
from mdnc.modules._valid_region import ValidRegion
from mdnc.ops import path

Moments = tuple[Tensor, Tensor]


class Reduction(NamedTuple):
    """The axes over which means are taken, with channels viewed as (groups, channels of a group).

    Args:
        groups: Number of groups of channels.
        axes: The axes of ``(B, G, C/G, L1, …)`` that are summed.
        values: Number of values without padding in each mean.
        eps: Added to the variance.
        clean: Whether maps are known to be zero in the padding.
    """

    groups: int
    axes: tuple[int, ...]
    values: Tensor
    eps: float
    clean: bool


def normalize(layer: _plan.Norm, norm: Any, x: Tensor, real: ValidRegion, *, clean: bool) -> Tensor:
    """Normalize a padded batch without its padding, where the result is zero.

    Args:
        layer: The norm in plain values.
        norm: The same as torch's module, whose statistics are updated as torch would.
        x: The maps, ``(B, C, L1, …)``, with finite values everywhere.
        real: Which part of them is not padding.
        clean: Whether they are zero in the padding.
    """
    batch = layer.kind == 'batch'
    if batch and not norm.training and norm.running_mean is not None:
        return norm(x).mul_(real.inside)  # type: ignore[no-any-return]
    how = _over(layer, norm, x, real, clean)
    y, mean, var = _eagerly(x, norm.weight, norm.bias, real.inside, how)
    if batch and norm.training and norm.track_running_stats:
        _track(norm, (mean.flatten(), var.flatten()), how.values)
    return y


def _over(layer: _plan.Norm, norm: Any, x: Tensor, real: ValidRegion, clean: bool) -> Reduction:
    volume = real.volume.to(torch.promote_types(x.dtype, torch.float32))
    spatial = tuple(range(3, x.dim() + 1))
    if layer.kind == 'batch':
        return Reduction(layer.planes, (0, 2, *spatial), volume.sum(), norm.eps, clean)
    groups = layer.groups if layer.kind in ('group', 'layer') else layer.planes
    count = volume.view(-1, *(1,) * x.dim()) * (layer.planes // groups)
    return Reduction(groups, (2, *spatial), count, norm.eps, clean)


@torch.no_grad()
def _track(norm: nn.modules.batchnorm._BatchNorm, moments: Moments, count: Tensor) -> None:
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    share = 1 / norm.num_batches_tracked.double() if norm.momentum is None else norm.momentum  # type: ignore
    mean, var = moments[0], moments[1] * (count / (count - 1))
    for running, now in ((norm.running_mean, mean), (norm.running_var, var)):
        running.copy_(running * (1 - share) + now * share)  # type: ignore[union-attr, operator]


def _eagerly(x: Tensor, weight: Any, bias: Any, inside: Tensor, how: Reduction) -> tuple[Tensor, Tensor, Tensor]:
    # Transforms and compilers take derivatives of the definition themselves, and choose what they keep.
    if path.transformed():
        return normalized(x, weight, bias, inside, how)
    return _Normalized.apply(x, weight, bias, inside, how)  # type: ignore[no-any-return, no-untyped-call]


def normalized(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, inside: Tensor, how: Reduction
) -> tuple[Tensor, Tensor, Tensor]:
    """The norm, its means and its variances, in differentiable steps."""
    seen, mask = _seen(x, how), _mask(x, inside)
    mean = (seen if how.clean else seen * mask).sum(how.axes, keepdim=True) / how.values
    centred = (seen - mean).mul_(mask)
    var = centred.square().sum(how.axes, keepdim=True) / how.values
    scale = (var + how.eps).rsqrt()
    y = centred * (scale if weight is None else scale * _channels(weight, how, x.dim()))
    if bias is not None:
        y = torch.addcmul(y, mask, _channels(bias, how, x.dim()))
    return y.flatten(1, 2).to(x.dtype), mean, var


class _Normalized(torch.autograd.Function):
    """`normalized`, keeping its input and little else."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, inside: Tensor, how: Reduction
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, var = normalized(x, weight, bias, inside, how)
        ctx.save_for_backward(x, weight, bias, inside, mean, var)
        ctx.how = how
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, bias, inside, mean, var = ctx.saved_tensors
        if grad is None:
            return None, None, None, None, None
        if torch.is_grad_enabled():
            return _differentiable(ctx, grad)
        how, wanted = ctx.how, ctx.needs_input_grad
        # Everything follows from Σ g and Σ g·(x − mean) of each plane.
        g = _seen(grad, how) * _mask(x, inside)
        centred, rstd = _seen(x, how) - mean, (var + how.eps).rsqrt()
        within = tuple(range(3, g.dim()))
        sums, products = g.sum(within, keepdim=True), (g * centred).sum(within, keepdim=True)
        of_weight = (products * rstd).sum(0).flatten().to(weight.dtype) if wanted[1] else None
        of_bias = sums.sum(0).flatten().to(bias.dtype) if wanted[2] else None
        of_x = _of_x(g, centred, (sums, products), rstd, weight, how) if wanted[0] else None
        return None if of_x is None else of_x.mul_(inside).to(x.dtype), of_weight, of_bias, None, None


def _of_x(g: Tensor, centred: Tensor, sums: Moments, rstd: Tensor, weight: Any, how: Reduction) -> Tensor:
    scale = rstd if weight is None else rstd * _channels(weight, how, g.dim() - 1)
    axes = tuple(axis for axis in how.axes if axis < 3)
    straight = (sums[0] * scale).sum(axes, keepdim=True) / how.values
    along = (sums[1] * scale).sum(axes, keepdim=True) / how.values * rstd.square()
    return g.mul_(scale).addcmul_(centred, along, value=-1).sub_(straight).flatten(1, 2)


def _differentiable(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    # For derivatives of higher order.
    x, weight, bias, inside, *_ = ctx.saved_tensors
    wanted = [each for each, needed in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if needed]
    found = iter(torch.autograd.grad(normalized(x, weight, bias, inside, ctx.how)[0], wanted, grad, create_graph=True))
    return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None, None


def _seen(x: Tensor, how: Reduction) -> Tensor:
    # Half floats are summed in single precision.
    return x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(1, (how.groups, -1))  # type: ignore


def _mask(x: Tensor, inside: Tensor) -> Tensor:
    return inside.unsqueeze(1).to(torch.promote_types(x.dtype, torch.float32))


def _channels(values: Tensor, how: Reduction, dim: int) -> Tensor:
    return values.view(how.groups, -1, *(1,) * (dim - 2))
