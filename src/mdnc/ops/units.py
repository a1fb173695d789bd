"""Units and shortcuts with their parameters: forward, what is kept of them, and backward."""

from typing import NamedTuple

import torch
from torch import Tensor

from mdnc._torch import aten
from mdnc.ops import convolution, definition, norm_act
from mdnc.ops.backend import Backend, NormAct
from mdnc.ops.channels_last import is_channels_last, to_layout
from mdnc.ops.definition import INSTANCE, Resize, Shortcut, Unit, Weights
from mdnc.ops.masked import Mask, MaskedNormAct
from mdnc.ops.norm_act import Affine, Moments, Running, Step

_LINEAR_BACKWARD = {
    1: aten.upsample_linear1d_backward,
    2: aten.upsample_bilinear2d_backward,
    3: aten.upsample_trilinear3d_backward,
}
_NEAREST_BACKWARD = {
    1: aten.upsample_nearest1d_backward,
    2: aten.upsample_nearest2d_backward,
    3: aten.upsample_nearest3d_backward,
}


class Statistics(NamedTuple):
    """What a batch norm keeps of the batches it has seen, see ``nn.BatchNorm2d``.

    Args:
        mean: Running mean ``(C,)``.
        variance: Running variance ``(C,)``.
        batches: Their number.
        momentum: Weight of a new batch; ``None`` for an average over all.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor | None = None
    momentum: float | None = None

    def next(self) -> Running:
        """Count one more batch."""
        if self.batches is not None:
            self.batches.add_(1)
        if self.momentum is not None:
            return Running(self.mean, self.variance, self.momentum)
        return Running(self.mean, self.variance, 0.0 if self.batches is None else 1 / float(self.batches))


class Kept(NamedTuple):
    """What is kept of a unit or a shortcut; what is None is rebuilt, or there is none.

    Args:
        x: Its input.
        z: Its convolution's input; of a shortcut its convolution's output.
        mean: Mean of the norm's input.
        rate: See ``norm_act.Moments``.
    """

    x: Tensor | None = None
    z: Tensor | None = None
    mean: Tensor | None = None
    rate: Tensor | None = None

    @property
    def at(self) -> Moments | None:
        """The moments of the norm's input."""
        return None if self.mean is None or self.rate is None else Moments(self.mean, self.rate)


class Grads(NamedTuple):
    """Gradients of a unit's parameters, named as in ``Weights``; None where not needed."""

    scale: Tensor | None = None
    shift: Tensor | None = None
    slope: Tensor | None = None
    kernel: Tensor | None = None
    bias: Tensor | None = None


class Needs(NamedTuple):
    """Which of them are needed."""

    scale: bool
    shift: bool
    slope: bool
    kernel: bool
    bias: bool


def masking(by: Backend, mask: Mask) -> Backend:
    """The backend for a unit whose input has padding."""
    own = MaskedNormAct(by.norm_act, mask)
    return by._replace(norm_act=NormAct(own.forward, own.rebuild, own.backward, own.activate, own.activate_backward))


# Small blocks wait for Python: between here and the kernels loops stand where comprehensions would, which are calls
# before Python 3.12, and what is done once a unit is not put into functions of its own.


class UnitRun:
    """One unit with its parameters, forward and backward."""

    def __init__(
        self, how: Unit, weights: Weights, dtype: torch.dtype, by: Backend, statistics: Statistics | None = None
    ) -> None:
        self.how, self.by, self.statistics = how, by, statistics
        # Under autocast in another type than maps, see ``convolution.mixed_forward``.
        self.kernel, self.bias = weights.kernel, weights.bias
        vectors: list[Tensor | None] = []
        for each in weights[:3]:
            vectors.append(None if each is None else each.detach().view(1, -1, 1))  # noqa: PERF401
        self.affine = Affine(*vectors)
        norm = how.norm or INSTANCE
        self.step = Step(norm.eps, how.activator, dtype, norm.kind, norm.groups, how.alpha)

    def norm_act(self, x: Tensor) -> tuple[Tensor, Moments | None]:
        """The convolution's input z, and the moments of x."""
        flat, at, statistics = x.flatten(2), None, self.statistics
        if self.how.norm is None:
            z = self.by.norm_act.activate(flat, self.affine.slope, self.step)
        elif statistics is None:
            z, at = self.by.norm_act.forward(flat, self.affine, self.step)
        else:
            z, at = _with_statistics(flat, self.affine, self.step, statistics, self.by)
        return (z.view(x.shape) if self.how.resize is None and x.shape[1] > 1 else self.resized(z, x)), at

    def rebuild(self, x: Tensor, at: Moments | None) -> tuple[Tensor, Tensor | None]:
        """z once more, and h where it is at hand."""
        flat = x.flatten(2)
        if at is None:
            return self.resized(self.by.norm_act.activate(flat, self.affine.slope, self.step), x), flat
        z, h = self.by.norm_act.rebuild(flat, at, self.affine, self.step)
        return (z.view(x.shape) if self.how.resize is None and x.shape[1] > 1 else self.resized(z, x)), h

    def convolve(self, z: Tensor) -> Tensor:
        """The unit's output."""
        if self.kernel is None:
            return z
        return self.by.convolution.forward(z, self.kernel, self.bias, self.how.geometry, self.by.tools)

    def backward(self, g: Tensor, kept: Kept, needs: Needs, below: bool) -> tuple[Tensor | None, Grads]:
        """Gradients of x and of the parameters; those not needed may be None."""
        x, z, mean, rate = kept
        assert x is not None, 'an input that was not kept is rebuilt first'
        at, h = None if mean is None or rate is None else Moments(mean, rate), None
        if self.kernel is None:
            gz: Tensor | None
            gz, gkernel, gbias = self._own(g), None, None
        else:
            if z is None and needs.kernel:
                z, h = self.rebuild(x, at)
            elif z is None:  # where no weight is trained, only its shape is read
                z = self.resized(torch.empty_like(x.flatten(2), dtype=self.step.dtype), x)
            wanted = (below or any(needs[:3]), needs.kernel, needs.bias)
            differentiate, tools = self.by.convolution.backward, self.by.tools
            gz, gkernel, gbias = differentiate(g.to(self.step.dtype), z, self.kernel, self.how.geometry, wanted, tools)
            del z
        if gz is None:
            return None, Grads(kernel=gkernel, bias=gbias)
        if self.how.resize is not None:
            gz = resize_backward(gz, self.how.resize, x.shape[2:])
        if at is None:
            flat, slope = x.flatten(2), self.affine.slope
            gx, gslope = self.by.norm_act.activate_backward(gz.flatten(2), flat, slope, self.step)
            return gx.view(x.shape), Grads(None, None, gslope, gkernel, gbias)
        grads = self.by.norm_act.backward(gz.flatten(2), h, x.flatten(2), at, self.affine, self.step)
        return grads.x.view(x.shape), Grads(grads.scale, grads.shift, grads.slope, gkernel, gbias)

    def _own(self, g: Tensor) -> Tensor:
        """The gradient of the output, ours to overwrite; others read it too."""
        own = g.to(self.step.dtype)
        return own.clone() if own is g and self.step.activator != 'null' else own

    def resized(self, flat: Tensor, x: Tensor) -> Tensor:
        """``(N, C, L)`` → ``(N, C, L1, …)`` as x has them, enlarged."""
        z = flat.view(x.shape)
        if x.shape[1] == 1 and is_channels_last(x):  # which a view of one channel would forget
            z = to_layout(z, True)
        return z if self.how.resize is None else self.how.resize(z)


def _with_statistics(
    x: Tensor, affine: Affine, step: Step, statistics: Statistics, by: Backend
) -> tuple[Tensor, Moments]:
    if step.norm != 'fixed':
        return by.norm_act.forward(x, affine, step, statistics.next())
    # A copy of the mean, for backward is to find that of now, whatever batches are taken in until then.
    mean = statistics.mean.clone()
    at = norm_act.given(mean, statistics.variance, step.eps, norm_act.accumulator(x.dtype))
    return by.norm_act.rebuild(x, at, affine, step)[0], at


class ShortcutRun:
    """A shortcut with its parameters, forward and backward.

    A 1 × … × 1 convolution comes first: only the positions that a stride leaves go through it, and the up-sampling
    commutes with it, since its weights sum to one.
    """

    def __init__(
        self, how: Shortcut, weights: Weights, dtype: torch.dtype, by: Backend, statistics: Statistics | None = None
    ) -> None:
        self.how, self.by, self.dtype, self.statistics = how, by, dtype, statistics
        assert weights.kernel is not None, 'a shortcut has a convolution'
        self.kernel, self.bias = weights.kernel, weights.bias
        self.affine = Affine(_planar(weights.scale), _planar(weights.shift), None)
        norm = how.norm or INSTANCE
        self.step = Step(norm.eps, 'null', dtype, norm.kind, norm.groups)
        self.geometry = how.geometry
        if not how.geometry.transposed:
            self.geometry = how.geometry._replace(stride=(1,) * len(how.geometry.stride))
        self.first = None if by.small_shortcuts else how.resize
        self.last = how.resize if by.small_shortcuts else None

    def convolve(self, x: Tensor) -> Tensor:
        """The norm's input."""
        z = self._read(x).to(self.dtype)
        z = z if self.first is None else self.first(z)
        u = self.by.convolution.forward(z, self.kernel, self.bias, self.geometry, self.by.tools)
        return u if self.last is None else self.last(u)

    def normalise(self, u: Tensor) -> tuple[Tensor, Moments | None]:
        """The shortcut's output, and the moments of u."""
        if self.how.norm is None:
            return u, None
        if self.statistics is not None:
            y, at = _with_statistics(u.flatten(2), self.affine, self.step, self.statistics, self.by)
        else:
            y, at = self.by.norm_act.forward(u.flatten(2), self.affine, self.step)
        return y.view(u.shape), at

    def backward(self, g: Tensor, x: Tensor, kept: Kept, gx: Tensor | None, needs: Needs) -> Grads:
        """Gradients of the parameters, of which those not needed may be None; that of x is added to ``gx``."""
        if gx is None and not any(needs):
            return Grads()
        gu, gscale, gshift = self._norm_backward(g.to(self.dtype), x, kept)
        read = self._read(x).to(self.dtype)
        z = read if self.first is None else self.first(read)
        gu = resize_backward(gu, self.last, z.shape[2:])
        wanted = (gx is not None, needs.kernel, needs.bias)
        gz, gkernel, gbias = self.by.convolution.backward(gu, z, self.kernel, self.geometry, wanted, self.by.tools)
        if gx is not None and gz is not None:
            self._add_read(resize_backward(gz, self.first, read.shape[2:]), gx)
        return Grads(gscale, gshift, None, gkernel, gbias)

    def _norm_backward(self, g: Tensor, x: Tensor, kept: Kept) -> tuple[Tensor, Tensor | None, Tensor | None]:
        at = kept.at
        if at is None:
            return g, None, None
        u = self.convolve(x) if kept.z is None else kept.z
        flat = u.flatten(2)
        grads = self.by.norm_act.backward(g.flatten(2), flat, flat, at, self.affine, self.step)
        return grads.x.view(u.shape), grads.scale, grads.shift

    def _read(self, x: Tensor) -> Tensor:
        """What of x the convolution reads: averages, or the positions that its stride leaves."""
        if self.how.pool:
            return definition.averaged(x, self.how.pool)
        return x if self.how.geometry.transposed else convolution.read(x, self.how.geometry.stride)

    def _add_read(self, g: Tensor, gx: Tensor) -> None:
        """Add the gradient of what was read to that of x."""
        if self.how.pool:
            gx.add_(_average_backward(g.to(gx.dtype), gx, self.how.pool))
        else:
            place = gx if self.how.geometry.transposed else gx[convolution.strided(self.how.geometry.stride)]
            place.add_(g)


def _average_backward(g: Tensor, x: Tensor, stride: tuple[int, ...]) -> Tensor:
    window = definition.windows(x, stride)
    if x.dim() == 3:  # torch has it of two axes and of three
        return _average_backward(g.unsqueeze(2), x.unsqueeze(2), (1, *stride)).squeeze(2)
    derive = aten.avg_pool2d_backward if x.dim() == 4 else aten.avg_pool3d_backward
    zero = [0] * len(stride)
    if x.dim() == 5 and x.device.type == 'cpu' and x.dtype in (torch.bfloat16, torch.float16):
        return derive(g.float(), x.float(), window, stride, zero, True, False, None).to(x.dtype)  # type: ignore[no-any-return]
    return derive(g, x, window, stride, zero, True, False, None)  # type: ignore[no-any-return]


def _planar(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.detach().view(1, -1, 1)


def resize_backward(g: Tensor, resize: Resize | None, size: torch.Size) -> Tensor:
    """The gradient of maps of this size from that of the enlarged ones."""
    if resize is None:
        return g
    sizes, factors = (g.shape[2:], (*g.shape[:2], *size)), resize.factors or ()
    if resize.nearest:
        return _NEAREST_BACKWARD[len(size)](g, *sizes, *factors)  # type: ignore[no-any-return]
    return _LINEAR_BACKWARD[len(size)](g, *sizes, True)  # type: ignore[no-any-return]
