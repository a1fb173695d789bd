"""Torch's private names, all of them: what each is for, and what happens where torch has it no longer.

They are looked up once, here. Of those that the fused path uses each is also proved on a tiny case; where one is
missing or gives something else, `why_not_fused` says which, and networks take the plain path. What is missing and has
a substitute gets it; what has none raises, when it is used, an error that names it, and so does what serves estimates
and exports and is not what it was.
"""

import importlib
import math
import warnings
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as modules

LOOKED_UP: set[str] = set()


def find(path: str) -> Any:
    """What has this name, or None."""
    LOOKED_UP.add(path)
    owner: Any = torch
    before, *parts = path.split('.')
    for part in parts:
        before = f'{before}.{part}'
        found = getattr(owner, part, None)
        if found is None:
            try:
                importlib.import_module(before)
            except ImportError:
                return None
            found = getattr(owner, part, None)
        owner = found
    return owner


def _does(right: Callable[[Any], Any], found: Any) -> bool:
    """Whether what was found gives what it should."""
    try:
        return bool(right(found))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False


def needed(path: str, purpose: str, right: Callable[[Any], Any] = callable) -> Any:
    """What has this name.

    Args:
        path: The name.
        purpose: What it is for.
        right: Whether what was found gives what it should.

    Raises:
        RuntimeError: Torch has nothing of this name, or something else.
    """
    found = find(path)
    if found is None or not _does(right, found):
        raise misses(path, purpose, found)
    return found


def spared(path: str, right: Callable[[Any], Any]) -> Any:
    """What has this name and gives what it should, or None."""
    found = find(path)
    return found if found is not None and _does(right, found) else None


def misses(path: str, purpose: str, found: Any) -> RuntimeError:
    """The error about a name that torch has not, or that is not what it was."""
    where = f'torch {torch.__version__}'
    what = f'{where} has no {path}' if found is None else f'{path} of {where} does not do what it did'
    return RuntimeError(f'{what}, which mdnc needs to {purpose}.')


def _function(path: str, purpose: str, right: Callable[[Any], Any] = callable) -> Any:
    """The function of this name, or one that says, when it is called, that there is none."""
    found = find(path)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise misses(path, purpose, found)

    return found if found is not None and _does(right, found) else refuse


def _class(path: str, purpose: str) -> Any:
    """The class of this name, or one that may be named and derived from, but raises as soon as it is used."""
    found = find(path)

    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise misses(path, purpose, found)

    placeholder = type(path.rpartition('.')[2], (Exception,), {'__init__': refuse, '__enter__': refuse})
    return found if isinstance(found, type) else placeholder


# ---- Tensors without values, and what watches operators: summaries, forecasts, profiles of networks ----

if TYPE_CHECKING:
    from torch._subclasses import FakeTensor as FakeTensor
    from torch._subclasses.fake_tensor import DataDependentOutputException as DataDependentOutputException
    from torch._subclasses.fake_tensor import DynamicOutputShapeException as DynamicOutputShapeException
    from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
    from torch.utils._pytree import tree_leaves as tree_leaves
else:
    _FAKE, _WATCH = 'run networks without computing', 'watch the operators of a network'
    FakeTensor = _class('torch._subclasses.FakeTensor', _FAKE)
    FakeTensorMode = _class('torch._subclasses.fake_tensor.FakeTensorMode', _FAKE)
    DataDependentOutputException = _class('torch._subclasses.fake_tensor.DataDependentOutputException', _FAKE)
    DynamicOutputShapeException = _class('torch._subclasses.fake_tensor.DynamicOutputShapeException', _FAKE)
    TorchDispatchMode = _class('torch.utils._python_dispatch.TorchDispatchMode', _WATCH)
    tree_leaves = _function(
        'torch.utils._pytree.tree_leaves', _WATCH, lambda leaves: leaves([1, (2, {'a': 3})]) == [1, 2, 3]
    )

# Within it operators are called as if nobody watched; None where torch has none.
no_dispatch_modes: Any = spared(
    'torch.utils._python_dispatch._disable_current_modes', lambda found: hasattr(found(), '__enter__')
)


def _chosen(select: Any) -> Any:
    x = torch.ones((1, 1, 2), device='cpu')
    return select(x, x, None, (1,), (0,), (1,), False, (0,), 1).name


# Which of torch's kernels computes a convolution.
conv_backend: Any = _function(
    'torch._C._select_conv_backend', 'forecast the memory of convolutions', lambda op: isinstance(_chosen(op), str)
)
# Asks a tensor for its device.
ask_device: Any = find('torch.ops.prim.device.default')

# Operators that give the moments of what they normalise.
MOMENTS = tuple(
    getattr(found, 'default', found)
    for found in map(find, ('torch.ops.aten.native_batch_norm', 'torch.ops.aten.native_group_norm'))
    if found is not None
)


# ---- Who is tracing, transforming or profiling ----

# None outside of torch.jit.trace.
tracing_state: Callable[[], object] = find('torch._C._get_tracing_state') or (lambda: None)
# None outside of torch.func.
interpreter: Callable[[], object] = find('torch._C._functorch.peek_interpreter_stack') or (lambda: None)
# Whether torch's profiler is on; what it does not see by itself is named for it.
profiling: Callable[[], bool] = spared(
    'torch._C._autograd._profiler_enabled', lambda found: isinstance(found(), bool)
) or (lambda: False)


def _transformed() -> bool:
    return interpreter() is not None


# torch.compile asks when it traces and guards the answer itself. As `torch.compiler.assume_constant_result`, which
# would import the compiler (a second) with this module.
_transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


def tracer() -> str:
    """What records or transforms layers one by one, and needs them called so; or an empty string."""
    if tracing_state() is not None:
        return 'torch.jit.trace is tracing'
    if _transformed() if torch.compiler.is_compiling() else interpreter() is not None:
        return 'a torch.func transform is on'
    return 'forward-mode differentiation is on' if getattr(forward_ad, '_current_level', -1) >= 0 else ''


def _is_no_batch(found: Any) -> bool:
    return found(torch.ones((), device='cpu')) is False


# Whether a tensor stands for many, under torch.vmap or where `torch.autograd.grad` is given a batch of gradients.
_batched: list[Callable[[Tensor], bool]] = [
    found
    for kind in ('batchedtensor', 'legacy_batchedtensor')
    if (found := spared(f'torch._C._functorch.is_{kind}', _is_no_batch)) is not None
]


def batched(x: Tensor) -> bool:
    """Whether ``x`` stands for many tensors, of which kernels of other make know nothing."""
    for asks in _batched:  # noqa: SIM110, for a generator is a call for each
        if asks(x):
            return True
    return False


# ---- Hooks and contents of modules ----

KINDS_OF_HOOKS = ('forward', 'forward_pre', 'backward', 'backward_pre')
CONTENTS = ('_modules', '_parameters', '_buffers')

# The registries themselves: they are empty unless somebody registers.
HOOKS_ON_ALL: list[dict[int, Any]] = [getattr(modules, f'_global_{kind}_hooks', {}) for kind in KINDS_OF_HOOKS]


def hooks(module: nn.Module) -> Iterable[dict[int, Any]]:
    """The registries of a module's own hooks."""
    return [getattr(module, f'_{kind}_hooks') for kind in KINDS_OF_HOOKS]


def buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """A module's own buffers, to be read and set."""
    found: dict[str, Tensor | None] = module._buffers
    return found


def contents(module: nn.Module) -> Iterable[dict[str, Any]]:
    """Children, parameters and buffers of a module, by name."""
    return [getattr(module, each) for each in CONTENTS]


# ---- Kinds of layers ----

CONVOLUTIONS: tuple[type[nn.Module], ...] = (
    *filter(None, [find('torch.nn.modules.conv._ConvNd')]),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
NORMS: tuple[type[nn.Module], ...] = (
    *filter(None, [find('torch.nn.modules.batchnorm._NormBase')]),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


# ---- Numbers in graphs ----


_guard: Any = None


def _look_up() -> None:
    # Where one compiles, for it is slow to load.
    global _guard
    path, purpose = 'torch.fx.experimental.symbolic_shapes.guard_scalar', 'trace blocks for torch.compile'
    _guard = needed(path, purpose)


# It runs while torch.compile traces, and is not traced: a graph would depend on `LOOKED_UP`, to which it adds, and be
# compiled once more at the second call.
_look_up._dynamo_marked_constant = True  # type: ignore[attr-defined]


def guard_scalar(value: Any) -> Any:
    """A number that a compiler may take for a symbol, as a constant of its graph."""
    _look_up()
    return _guard(value)


# ---- Maximum norms of many tensors at once ----


_many_norms: Any = spared(
    'torch._foreach_norm', lambda op: op([torch.tensor((1.0, -3.0), device='cpu')], torch.inf)[0].item() == 3
)


def maximum_norms(tensors: list[Tensor]) -> Iterable[Tensor]:
    """The largest magnitude of each tensor; NaN and Inf pass through."""
    if _many_norms is not None:
        return _many_norms(tensors, torch.inf)  # type: ignore[no-any-return]
    return [torch.linalg.vector_norm(each, torch.inf) for each in tensors]


# ---- Operators: derivatives and statistics that torch's functions keep to themselves ----

# The operator that Inductor has a linear layer computed by; only where torch has oneDNN.
linear: Any = find('torch.ops.mkldnn._linear_pointwise') if torch.backends.mkldnn.is_available() else None  # type: ignore[no-untyped-call]

_prelu_operator, _prelu_derivative = (find(f'torch.ops.aten._prelu_kernel{word}') for word in ('', '_backward'))


def _prelu_by_parts(h: Tensor, slope: Tensor) -> Tensor:
    return torch.where(h > 0, h, slope * h)


def _prelu_derivative_by_parts(g: Tensor, h: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(h > 0, g, slope * g), torch.where(h > 0, 0, g * h)


# PReLU of slopes that are broadcast to h, and its derivatives, of the slope for each value by itself.
prelu: Callable[..., Tensor] = _prelu_operator or _prelu_by_parts
prelu_backward: Callable[..., tuple[Tensor, Tensor]] = _prelu_derivative or _prelu_derivative_by_parts


class Name(NamedTuple):
    """A private name that the fused path uses.

    Args:
        path: The name.
        right: Whether what has the name gives what it should, on a tiny case.
        needed: Whether there is no substitute for it.
    """

    path: str
    right: Callable[[Any], bool]
    needed: bool = True


def why_not_fused() -> str:
    """Which private name keeps networks from the fused path, or an empty string; warns once."""
    if WRONG and not _warned:
        _warned.append(WRONG)
        warnings.warn(f'mdnc: networks take the plain path, for {WRONG}', stacklevel=3)
    return WRONG


_warned: list[str] = []

# Of one sample and one channel: x, g = ∂L/∂y, and the kernel of a convolution. In float64, and by arithmetic alone: no
# engine of autograd is to be started by an import, for processes may be forked later.
_CASE = (0, 0, 3), (1, 2, 5), (2, 7)
_X, _G, _K = (torch.tensor(each, dtype=torch.float64, device='cpu').view(1, 1, -1) for each in _CASE)
_S, _SLOPE = _X - 1, torch.tensor(0.3, dtype=torch.float64, device='cpu').view(1, 1, 1)
_MASK = [True, True, True]


def _close(got: Any, *want: Tensor) -> bool:
    got = got if isinstance(got, (tuple, list)) else (got,)
    pairs = zip(got, want, strict=False)
    return len(got) >= len(want) and all(
        mine.numel() == right.numel() and torch.allclose(mine.flatten(), right.flatten()) for mine, right in pairs
    )


def _normed() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean, rate = _X.mean(), 1 / (_X.var(correction=0) + 1).sqrt()
    standard = (_X - mean) * rate
    return standard, mean, rate, rate * (_G - _G.mean() - standard * (_G * standard).mean())


def _convolves(op: Any) -> bool:
    y = op(_X, _K, None, (1,), (0,), (1,), False, (0,), 1)
    return _close(y, _X[..., :2] * _K[..., 0] + _X[..., 1:] * _K[..., 1])


def _convolves_back(op: Any) -> bool:
    g, (a, b) = _G[..., :2], _K.unbind(2)
    got = op(g, _X, _K, [1], (1,), (0,), (1,), False, (0,), 1, _MASK)
    gx = torch.cat((g[..., 0] * a, g[..., 0] * b + g[..., 1] * a, g[..., 1] * b))
    return _close(got, gx, torch.stack(((g * _X[..., :2]).sum(), (g * _X[..., 1:]).sum())), g.sum())


def _group_norm(op: Any) -> bool:
    return _close(op(_X, None, None, 1, 1, 3, 1, 1.0), *_normed()[:3])


def _group_norm_back(op: Any) -> bool:
    _, mean, rate, gx = _normed()
    got = op(_G, _X, mean.view(1, 1), rate.view(1, 1), None, 1, 1, 3, 1, [True, False, False])
    return _close(got[:1], gx)


def _batch_norm(op: Any) -> bool:
    return _close(op(_X, None, None, None, None, True, 0.0, 1.0), *_normed()[:3])


def _batch_norm_back(op: Any) -> bool:
    standard, mean, rate, gx = _normed()
    one = torch.ones_like(mean).view(1)
    got = op(_G, _X, one, None, None, mean.view(1), rate.view(1), True, 1.0, _MASK)
    return _close(got, gx, (_G * standard).sum(), _G.sum())


def _activates_back(expected: Callable[[Tensor], Tensor], *more: Any) -> Callable[[Any], bool]:
    # The derivative at -1, 0.5 and 2.
    at = torch.tensor((-1.0, 0.5, 2.0), dtype=torch.float64, device='cpu')
    return lambda op: _close(op(_G.view(3), at, *more), _G.view(3) * expected(at))


def _resizes_back(axes: int, g: tuple[int, ...], want: tuple[float, ...], *more: Any) -> Callable[[Any], bool]:
    # Of one map from ``len(want)`` to ``len(g)`` values an axis, where the gradient is a product over the axes.
    gradient, wanted = (_product(torch.tensor(each, dtype=torch.float64, device='cpu'), axes) for each in (g, want))
    return lambda op: _close(op(gradient, gradient.shape[2:], wanted.shape, *more), wanted)


def _averages_back(axes: int) -> Callable[[Any], bool]:
    # Of windows of 2 over maps of 3, the last of which reaches beyond the end and counts what is there.
    g, want = (_product(torch.tensor(each, dtype=torch.float64, device='cpu'), axes) for each in ((2, 7), (1, 1, 7)))
    two, zero = [2] * axes, [0] * axes
    return lambda op: _close(op(g, torch.ones_like(want), two, two, zero, True, False, None), want)


def _product(values: Tensor, axes: int) -> Tensor:
    # (1, 1, n, …), the product of the values at each of the axes' indices.
    found = values
    for _ in range(axes - 1):
        found = found.unsqueeze(-1) * values
    return found[None, None]


# ---- What tells who traces or transforms: it says so while somebody does, and at no other time ----


def _sees_traces(found: Any) -> bool:
    seen: list[bool] = []

    def look(x: Tensor) -> Tensor:
        seen.append(found() is not None)
        return x + 1

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch.jit will be gone one day, and says so
        torch.jit.trace(look, (_X,), check_trace=False)  # type: ignore[no-untyped-call]
    return found() is None and seen == [True]


def _sees_transforms(found: Any) -> bool:
    seen: list[bool] = []

    def look(x: Tensor) -> Tensor:
        seen.append(found() is not None)
        return x

    torch.func.functionalize(look)(_X)
    return found() is None and seen == [True]


def _sees_forward_mode(found: Any) -> bool:
    with forward_ad.dual_level():
        return isinstance(found, int) and found < 0 <= forward_ad._current_level


def _has_registries(kind: Any) -> bool:
    return all(hasattr(kind(), name) for name in (*CONTENTS, *(f'_{each}_hooks' for each in KINDS_OF_HOOKS)))


def _multiplies(op: Any) -> bool:
    cases = ((1, 2), (0, 3), (5, 4)), ((2, 7),), (16, 21, 38)
    a, b, want = (torch.tensor(each, dtype=torch.float32, device='cpu') for each in cases)
    return _close(op(a, b, None, 'none', [], ''), want)


def _gelu(h: Tensor) -> Tensor:
    density = torch.exp(-h * h / 2) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(h / 2**0.5)) + h * density


def _silu(h: Tensor) -> Tensor:
    s = 1 / (1 + torch.exp(-h))
    return s.addcmul(s * h, 1 - s)


_RESIZES = {'linear1d': 1, 'bilinear2d': 2, 'trilinear3d': 3}
NAMES = (
    Name('torch.nn.Module', _has_registries),
    Name('torch._C._get_tracing_state', _sees_traces),
    Name('torch._C._functorch.peek_interpreter_stack', _sees_transforms),
    Name('torch.autograd.forward_ad._current_level', _sees_forward_mode),
    *(
        Name(f'torch.nn.modules.module._global_{kind}_hooks', lambda found: isinstance(found, dict))
        for kind in KINDS_OF_HOOKS
    ),
    Name('torch.ops.aten.convolution', _convolves),
    Name('torch.ops.aten.convolution_backward', _convolves_back),
    Name('torch.ops.aten.native_group_norm', _group_norm),
    Name('torch.ops.aten.native_group_norm_backward', _group_norm_back),
    Name('torch.ops.aten.native_batch_norm', _batch_norm),
    Name('torch.ops.aten.native_batch_norm_backward', _batch_norm_back),
    Name('torch.ops.aten.threshold_backward', _activates_back(lambda h: (h > 0).to(h.dtype), 0)),
    Name('torch.ops.aten.leaky_relu_backward', _activates_back(lambda h: (h > 0).to(h.dtype) * 0.7 + 0.3, 0.3, False)),
    Name(
        'torch.ops.aten.elu_backward',
        lambda op: _activates_back(lambda h: torch.where(h > 0, 1.0, 0.3 * h.exp()))(
            lambda g, h: op(g, 0.3, 1, 1, False, h)
        ),
    ),
    Name('torch.ops.aten.gelu_backward', _activates_back(_gelu)),
    Name('torch.ops.aten.silu_backward', _activates_back(_silu)),
    # Corners meet corners: values of 2 are taken at 0, 1/3, 2/3 and 1. Nearest: each twice.
    *(
        Name(f'torch.ops.aten.upsample_{kind}_backward', _resizes_back(axes, (1, 3, 6, 2), (5, 7), True))
        for kind, axes in _RESIZES.items()
    ),
    *(
        Name(f'torch.ops.aten.upsample_nearest{axes}d_backward', _resizes_back(axes, (1, 3, 6, 2), (4, 8)))
        for axes in (1, 2, 3)
    ),
    *(Name(f'torch.ops.aten.avg_pool{axes}d_backward', _averages_back(axes)) for axes in (2, 3)),
    Name('torch.ops.aten._prelu_kernel', lambda op: _close(op(_S, _SLOPE), _prelu_by_parts(_S, _SLOPE)), needed=False),
    Name(
        'torch.ops.aten._prelu_kernel_backward',
        lambda op: _close(op(_G, _S, _SLOPE), *_prelu_derivative_by_parts(_G, _S, _SLOPE)),
        needed=False,
    ),
    *((Name('torch.ops.mkldnn._linear_pointwise', _multiplies, needed=False),) if linear else ()),
)


def _operator(path: str) -> Any:
    return _function(path, 'compute blocks on the fused path')


_ATEN = 'torch.ops.aten.'
# Those operators that the fused path calls, by the last part of their name.
aten: Any = SimpleNamespace(
    **{
        name.path.removeprefix(_ATEN): _operator(name.path)
        for name in NAMES
        if name.needed and name.path.startswith(_ATEN)
    }
)


def first_wrong() -> str:
    """The first name of the fused path that is not what it was, and in which way; or an empty string."""
    for name in NAMES:
        found = find(name.path)
        if found is None and name.needed:
            return f'torch {torch.__version__} has no {name.path}'
        if found is not None and not _does(name.right, found):
            return f'{name.path} of torch {torch.__version__} does not do what it did'
    return ''


WRONG = first_wrong()
