"""The fused block equals its definition: outputs and every gradient, in every dtype, layout and memory level."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

import mdnc
from mdnc.modules import resnet
from mdnc.ops import backend, convolution, definition, fused, matmul, path
from mdnc.ops.convolution import Geometry
from mdnc.ops.definition import Block, Unit
from mdnc.ops.limits import LIMITS
from tests.ops.cases import CASES, NAMES, Case, flat, laid_out

LEVELS = ('fast', 'lean', 'leaner', 'least')
BACKENDS = backend.NAMES
# Low precision rounds each tensor between the steps; how often differs between the paths.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 6e-2, torch.float16: 1e-2}


def both(case: Case, x: Tensor, dtype: torch.dtype, *way: str) -> list[tuple[Tensor, Tensor]]:
    """Output and gradients, by the fused path and by the definition."""
    weights = case.weights(dtype)
    wanted = [x, *flat(weights)]
    y, reference = fused.block(x, weights, case.how, *way), definition.block(x, weights, case.how)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y.dtype)
    pairs = zip(torch.autograd.grad(y, wanted, g), torch.autograd.grad(reference, wanted, g), strict=True)
    return [(y, reference), *pairs]


def assert_close(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    scale = want.detach().abs().max().clamp_min(1e-3)
    assert ((got - want).abs().max() / scale).item() < TOLERANCES[dtype]


@pytest.mark.parametrize('kernels', BACKENDS)
@pytest.mark.parametrize('layout', ['contiguous', 'channels last'])
@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('case', CASES, ids=NAMES)
def test_equals_the_definition(case: Case, level: str, layout: str, kernels: str):
    for got, want in both(case, case.input(layout=layout), torch.float64, level, kernels):
        assert_close(got, want, torch.float64)


@pytest.mark.parametrize('kernels', BACKENDS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('layout', ['contiguous', 'channels last'])
@pytest.mark.parametrize('case', CASES, ids=NAMES)
def test_equals_the_definition_in_each_dtype(case: Case, dtype: torch.dtype, layout: str, kernels: str):
    (y, reference), *grads = both(case, case.input(dtype, layout), dtype, 'lean', kernels)
    assert_close(y, reference, dtype)
    exact = both(case, case.input(torch.float64), torch.float64)[1:]
    for (got, want), (_, truth) in zip(grads, exact, strict=True):
        # By norm, for a value next to the activation's kink may fall to either side of it; and where planes are as
        # small as here gradients cancel, so that the fused path may be as far off as the definition is.
        floor = (want.double() - truth).norm()
        assert got.dtype == want.dtype
        assert (got.double() - truth).norm() <= 2 * floor + 2 * TOLERANCES[dtype] * truth.norm()


@pytest.mark.parametrize('kernels', BACKENDS)
@pytest.mark.parametrize('case', CASES, ids=NAMES)
def test_gradcheck_once_and_twice(case: Case, kernels: str):
    weights = case.weights()
    sizes = len(definition.Weights._fields)
    places = [at for at, each in enumerate(each for own in weights for each in own) if each is not None]

    def run(x: Tensor, *tensors: Tensor) -> Tensor:
        given: list[Tensor | None] = [None] * (sizes * len(weights))
        for at, each in zip(places, tensors, strict=True):
            given[at] = each
        groups = [definition.Weights(*given[at : at + sizes]) for at in range(0, len(given), sizes)]
        return fused.block(x, groups, case.how, 'lean', kernels)

    inputs = (case.input(), *flat(weights))
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize('kernels', BACKENDS)
@pytest.mark.parametrize('kind', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('case', CASES, ids=NAMES)
def test_autocast_as_the_definition_under_it(case: Case, kind: torch.dtype, kernels: str):
    x, weights = case.input(torch.float32), case.weights(torch.float32)
    wanted = [x, *flat(weights)]
    with torch.autocast('cpu', kind):
        y = fused.block(x, weights, case.how, 'lean', kernels)
        reference = definition.block(x, weights, case.how)
    assert_close(y, reference, kind)
    grads = [torch.autograd.grad(each.float().square().sum(), wanted) for each in (y, reference)]
    for got, want in zip(*grads, strict=True):
        assert got.dtype == want.dtype == torch.float32
        assert (got - want).norm() <= 0.15 * want.norm() + 0.05


AUTOCASTS = {
    'bfloat16': lambda: torch.autocast('cpu', torch.bfloat16),
    'float16': lambda: torch.autocast('cpu', torch.float16),
    'of another device': lambda: torch.autocast('cuda', torch.bfloat16),
    'off within': lambda: torch.autocast('cpu', torch.bfloat16, enabled=False),
}
WITHOUT = {'no_grad': torch.no_grad, 'inference_mode': torch.inference_mode}
NETS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    'UNet2d': lambda: resnet.UNet2d(4, [1, 1]),
    'UNet2d, plain': lambda: resnet.UNet2d(4, [1, 1], memory='plain'),
    'UNet2d, optimized': lambda: mdnc.optimize(resnet.UNet2d(4, [1, 1])),
    'EncoderNet2d, optimized': lambda: mdnc.optimize(resnet.EncoderNet2d(4, [1, 1], block='plain')),
    'a block': lambda: resnet.BlockPlain2d(1, 4, stride=2),
    'a convolution': lambda: functools.partial(path.call, nn.Conv2d(1, 4, 3)),
    'norm_act_conv': lambda: functools.partial(
        mdnc.ops.norm_act_conv, kernel=nn.Conv2d(1, 4, 3).weight, activator='relu'
    ),
}


@pytest.mark.filterwarnings('ignore:(User provided|CUDA is not available)')  # torch's own, where there is no CUDA
@pytest.mark.parametrize('autocast', AUTOCASTS)
@pytest.mark.parametrize('without', WITHOUT)
@pytest.mark.parametrize('name', NETS)
def test_autocast_is_the_same_without_gradients(name: str, without: str, autocast: str):
    run, x = NETS[name](), torch.randn(2, 1, 12, 9)
    with torch.autocast('cpu', torch.float16), AUTOCASTS[autocast]():
        want = run(x)
        with WITHOUT[without]():
            assert_same_bits(run(x), want)
        if isinstance(run, nn.Module):
            assert_same_bits(run.requires_grad_(False)(x), want)


def assert_same_bits(got: Tensor, want: Tensor) -> None:
    assert got.dtype == want.dtype
    assert torch.equal(got, want)


def test_double_backward_under_autocast():
    case = CASES[0]
    x, weights = case.input(torch.float32), case.weights(torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        y = fused.block(x.bfloat16(), weights, case.how)
    (gx,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
    assert gx.square().sum().backward() is None


@pytest.mark.parametrize('layout', ['contiguous', 'channels last'])
@pytest.mark.parametrize('case', CASES, ids=NAMES)
def test_keeps_the_layout(case: Case, layout: str):
    x = case.input(torch.float32, layout)
    weights = case.weights(torch.float32)
    if layout != 'contiguous':
        weights = [
            own._replace(kernel=None if own.kernel is None else laid_out(own.kernel.detach(), layout))
            for own in weights
        ]
    y = fused.block(x, weights, case.how)
    at_end = y if layout == 'contiguous' else y.movedim(1, -1)
    assert at_end.is_contiguous()


@pytest.mark.parametrize('case', CASES, ids=NAMES)
def test_repeats_to_the_bit(case: Case):
    once, again = (both(case, case.input(torch.float32), torch.float32) for _ in range(2))
    for (first, _), (second, _) in zip(once, again, strict=True):
        assert torch.equal(first, second)


def kept_bytes(run, *leave_out: Tensor) -> int:
    """Bytes of the storages that autograd keeps, each counted once."""
    seen = {}
    known = {each.untyped_storage().data_ptr() for each in leave_out}

    def pack(each: Tensor) -> Tensor:
        storage = each.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = storage.nbytes()
        return each

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each):
        run()
    return sum(seen.values())


def three_units(planes: int = 8, length: int = 1000) -> tuple[Block, Tensor, list[definition.Weights]]:
    """A block of 1 × 1, 3 × 3 and 1 × 1 convolutions with an input beside which its weights are small."""
    how = next(each for each in CASES if each.name == 'identity1d').how
    weights = [
        definition.Weights(
            *(torch.ones(planes, requires_grad=True) for _ in range(3)),
            torch.randn(planes, planes, 2 * unit.geometry.padding[0] + 1, requires_grad=True),
            None,
        )
        for unit in how.units
    ]
    return how, torch.randn(2, planes, length), weights


def test_keeps_one_tensor_a_unit_beside_the_moments():
    how, x, weights = three_units()
    tensor, moments = x.nbytes, 2 * 2 * x.shape[1] * 4
    counts = {'fast': 5, 'lean': 2, 'leaner': 1, 'least': 0}  # beside the block's own input
    for level, count in counts.items():
        kept = kept_bytes(lambda: fused.block(x, weights, how, level), x, *flat(weights))  # noqa: B023
        assert kept == count * tensor + 3 * moments, level


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, at most, beside those that were there before."""

    def __init__(self) -> None:
        self.storages: dict[StorageWeakRef, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        for each in torch.utils._pytree.tree_leaves(given):
            if isinstance(each, Tensor):
                storage = each.untyped_storage()
                self.storages.setdefault(StorageWeakRef(storage), storage.nbytes())
        self.storages = {each: size for each, size in self.storages.items() if not each.expired()}
        self.most = max(self.most, sum(self.storages.values()))
        return given


# Tensors of a unit's size that are alive at once in backward; what was kept is brought back from elsewhere.
MOST_ALIVE = {'torch': (11, 8), 'optimized': (9, 7)}  # of 'fast', and of any other level


@pytest.mark.parametrize('kernels', BACKENDS)
@pytest.mark.parametrize('level', LEVELS)
def test_backward_frees_what_it_is_done_with(level: str, kernels: str):
    how, x, weights = three_units()
    with torch.autograd.graph.saved_tensors_hooks(lambda each: each, lambda each: each.clone()):
        y = fused.block(x.requires_grad_(), weights, how, level, kernels)
    g = torch.ones_like(y)
    alive = Alive()
    with alive:
        torch.autograd.grad(y, [x, *flat(weights)], g)
    assert alive.most < (MOST_ALIVE[kernels][level != 'fast'] + 0.5) * x.nbytes


def test_all_that_is_kept_can_be_moved():
    case = next(each for each in CASES if each.name == 'up2d')
    x, weights = case.input(), case.weights()
    seen: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: seen.append(each) or each.clone(), lambda each: each):
        y = fused.block(x, weights, case.how, 'fast')
    for each in seen:
        if not each.requires_grad:
            each.fill_(float('nan'))  # had anything been kept elsewhere, its gradient would show it
    grads = torch.autograd.grad(y.sum(), flat(weights))
    assert all(each.isfinite().all() for each in grads)


@pytest.mark.parametrize('case', CASES, ids=NAMES)
def test_frozen_parameters_get_none_and_change_nothing(case: Case):
    x, weights = case.input(), case.weights()
    everything = flat(weights)
    full = torch.autograd.grad(fused.block(x, weights, case.how).square().sum(), everything)
    for chosen in range(len(everything)):
        for at, each in enumerate(everything):
            each.requires_grad_(at == chosen)
        y = fused.block(x.detach(), weights, case.how)
        (got,) = torch.autograd.grad(y.square().sum(), everything[chosen])
        assert torch.allclose(got, full[chosen], rtol=1e-9, atol=1e-9)


def test_no_graph_without_gradients():
    case = CASES[0]
    x, weights = case.input(), case.weights()
    with torch.no_grad():
        assert fused.block(x, weights, case.how).grad_fn is None
    with torch.inference_mode():
        assert fused.block(x.detach().clone(), weights, case.how).is_inference()


def test_a_plane_far_from_zero_keeps_its_variance():
    x = torch.randn(1, 2, 4096) + 1e4
    unit = Unit(Geometry((1,), (0,)), activator='null')
    weights = [definition.Weights(None, None, None, torch.eye(2)[..., None], None)]
    want = definition.block(x.double(), [weights[0]._replace(kernel=weights[0].kernel.double())], Block((unit,)))
    for layout in ('contiguous', 'channels last'):
        got = fused.block(laid_out(x, layout), weights, Block((unit,)))
        assert (got - want).abs().max() < 5e-3  # 1e4 has a spacing of 1e-3 in float32


@pytest.mark.parametrize('layout', ['contiguous', 'channels last'])
@pytest.mark.parametrize('part', ['expanded', 'of another'])
def test_gradients_that_come_expanded_or_as_a_part(part: str, layout: str):
    case = next(each for each in CASES if each.name == 'identity2d')
    x, weights = case.input(torch.float64, layout), case.weights()
    y = fused.block(x, weights, case.how)
    g = torch.randn(2, 1, 1, 1, dtype=torch.float64).expand_as(y)
    if part == 'of another':
        g = laid_out(torch.randn(2, 2 * y.shape[1], *y.shape[2:], dtype=torch.float64), layout)[:, 1 : 1 + y.shape[1]]
    inputs = (x, *flat(weights))
    got = torch.autograd.grad(y, inputs, g)
    want = torch.autograd.grad(definition.block(x, weights, case.how), inputs, g.clone())
    torch.testing.assert_close(got, want)


# ---- Convolution routes ----


@pytest.mark.parametrize('layout', ['contiguous', 'channels last'])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('order', [1, 2, 3])
def test_columns_equal_torch(order: int, stride: int, layout: str):
    tools = convolution.TORCH._replace(limits=LIMITS._replace(im2col_weights=0))
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[order - 1](3, 5, 3, stride, 1).double()
    x = torch.randn(2, 3, *(5, 4, 3)[:order], dtype=torch.float64)
    kernel = conv.weight.detach()
    if layout != 'contiguous':
        x, kernel = (laid_out(each, layout) for each in (x, kernel))
    geometry = Geometry(conv.stride, conv.padding)
    assert convolution.route(x, kernel, geometry, tools) == 'im2col'
    y = convolution.forward(x, kernel, conv.bias, geometry, tools)
    torch.testing.assert_close(y, conv(x))
    g = torch.randn_like(y)
    want = torch.autograd.grad(conv(x.requires_grad_()), [x, conv.weight, conv.bias], g)
    with torch.no_grad():
        got = convolution.backward(g, x, kernel, geometry, (True, True, True), tools)
    torch.testing.assert_close(got, want)


def test_the_route_follows_the_shape():
    geometry, wide = Geometry((1, 1), (0, 0)), Geometry((1, 1), (1, 1))
    deep, shallow, point = torch.empty(1024, 1024, 3, 3), torch.empty(64, 64, 3, 3), torch.empty(64, 64, 1, 1)
    assert convolution.route(torch.empty(8, 1024, 4, 4), deep, wide) == 'im2col'
    assert convolution.route(torch.empty(8, 64, 64, 64), shallow, wide) == 'torch'
    assert convolution.route(torch.empty(8, 64, 64, 64), point, geometry) == 'matmul by sample'
    assert convolution.route(torch.empty(8, 64, 32, 32), point, geometry) == 'torch'
    assert convolution.route(torch.empty(8, 64, 32, 32).double(), point, geometry) == 'matmul by sample'
    assert convolution.route(torch.empty(8, 64, 2, 2), point, geometry) == 'matmul'
    assert convolution.route(laid_out(torch.empty(8, 64, 32, 32), 'channels last'), point, geometry) == 'matmul'
    assert convolution.route(torch.empty(8, 64, 64, 64, dtype=torch.bfloat16), shallow, wide) == 'torch'
    assert convolution.route(torch.empty(8, 64, 9, 9, device='meta'), torch.empty(64, 64, 1, 1), geometry) == 'torch'


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('layout', ['contiguous', 'channels last'])
@pytest.mark.parametrize('size', [(2, 2), (9, 8)], ids=['few positions', 'many'])
def test_pointwise_routes_equal_torch(size, layout, dtype):
    tools = convolution.TORCH._replace(limits=LIMITS._replace(sample_positions=64))
    conv = nn.Conv2d(12, 20, 1).to(dtype)
    x, geometry = laid_out(torch.randn(3, 12, *size, dtype=dtype), layout), Geometry((1, 1), (0, 0))
    assert convolution.route(x, conv.weight, geometry, tools) in ('matmul', 'matmul by sample')
    with torch.no_grad():
        y = convolution.forward(x, conv.weight, conv.bias, geometry, tools)
    torch.testing.assert_close(y, conv(x))
    g = torch.randn_like(y)
    want = torch.autograd.grad(conv(x.requires_grad_()), [x, conv.weight, conv.bias], g)
    with torch.no_grad():
        got = convolution.backward(g, x, conv.weight, geometry, (True, True, True), tools)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert got[0].stride() == x.stride()


@pytest.mark.parametrize('name', ['dense', 'transposed', 'expanded', 'with gaps', 'transposed with gaps'])
def test_products_of_matrices_however_they_lie(name: str):
    values = torch.randn(6, 8)
    a = {
        'dense': values,
        'transposed': values.t().contiguous().t(),
        'expanded': values[:1].expand(6, 8),
        'with gaps': torch.randn(12, 8)[::2],
        'transposed with gaps': torch.randn(8, 12).t()[::2],
    }[name]
    b = torch.randn(5, 8)
    torch.testing.assert_close(matmul.matmul(a, b), a @ b.t())
    torch.testing.assert_close(matmul.matmul(b, a), b @ a.t())
