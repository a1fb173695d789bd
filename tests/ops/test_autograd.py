"""What may be done with results, gradients and layers of a block is what torch's own layers allow."""

import copy
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mdnc
from mdnc.modules.resnet import BlockBottleneck2d, BlockPlain2d, EncoderNet1d, UNet2d
from mdnc.ops import allocator, convolution, small_blocks

# Channels and sizes at which each way of computing a block comes up.
NETS: dict[str, Callable[[], nn.Module]] = {
    'a block of 3 × 3': lambda: BlockPlain2d(16, 16),
    'a block that ends with 1 × 1': lambda: BlockBottleneck2d(16, 16),
    'a strided block with batch norm': lambda: BlockBottleneck2d(16, 32, stride=2, normalizer='batch'),
    'convolutions first': lambda: BlockPlain2d(16, 16, layer_order='old', normalizer='batch', activator='relu'),
}
BACKENDS: dict[str, Callable[[nn.Module], nn.Module]] = {'torch': lambda net: net, 'optimized': mdnc.optimize}


def made(name: str, backend: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    """A network, and one like it that is to be run as torch's own layers."""
    torch.manual_seed(0)
    plain = NETS[name]().to(dtype)
    with torch.no_grad():
        for each in plain.parameters():
            each.add_(0.1 * torch.randn_like(each))
    plain.memory = 'plain'
    net = BACKENDS[backend](copy.deepcopy(plain))
    net.memory = 'lean'
    return net, plain


def sample(dtype: torch.dtype = torch.float64, size: tuple[int, int] = (9, 8), planes: int = 16) -> Tensor:
    return torch.randn(2, planes, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def assert_same(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-7)


WRITES: dict[str, Callable[[Tensor], Tensor]] = {
    'a sum': lambda y: y.add_(1),
    'a ReLU': nn.ReLU(inplace=True),
    'a part': lambda y: y[:, 1:].mul_(2),
}


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels last'])
@pytest.mark.parametrize('name', NETS)
def test_outputs_can_be_written_to(name: str, last: bool, backend: str):
    for dtype, size in ((torch.float64, (9, 8)), (torch.float32, (9, 8)), (torch.float64, (72, 60))):
        x = sample(dtype, size)
        x = x.to(memory_format=torch.channels_last) if last else x
        for write in WRITES.values():
            found = []
            for net in made(name, backend, dtype):
                y = net(x)
                write(y)
                found.append((y, *torch.autograd.grad(y.square().mean(), list(net.parameters()))))
            if dtype == torch.float64:
                assert_same(*found)


@pytest.mark.parametrize('backend', BACKENDS)
def test_second_derivatives_of_a_parameter_that_stands_in_several_places(backend: str):
    found = []
    for net in made('a block of 3 × 3', backend):
        net.conv2[1] = net.conv1[1]
        net.conv2[0].weight = net.conv1[0].weight
        x = sample().requires_grad_()
        grads = torch.autograd.grad(net(x).square().sum(), [x, *net.parameters()], create_graph=True)
        again = torch.autograd.grad(sum(each.square().sum() for each in grads), [x, *net.parameters()])
        found.append((*grads, *again))
    assert_same(*found)


def test_second_derivatives_in_float64_under_autocast():
    # Which leaves float64 alone.
    net, plain = made('a block of 3 × 3', 'torch')
    found = []
    for each in (net, plain):
        x = sample().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16):
            (gx,) = torch.autograd.grad(each(x).square().sum(), x, create_graph=True)
            found.append((gx, *torch.autograd.grad(gx.square().sum(), list(each.parameters()))))
    assert_same(*found)


@pytest.mark.filterwarnings('ignore:There is a performance drop')  # of torch's own rules for batches
@pytest.mark.parametrize('way', ['a batch of gradients', 'vmap', 'a jacobian'])
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('name', NETS)
def test_gradients_come_in_batches(name: str, backend: str, way: str):
    found = []
    for net in made(name, backend):
        x = sample(size=(5, 4)).requires_grad_()
        if way == 'a jacobian':
            own = net.eval()
            found.append([torch.autograd.functional.jacobian(lambda z: own(z).sum((2, 3))[0, :3], x, vectorize=True)])  # noqa: B023
            continue
        y, wanted = net(x), [x, *net.parameters()]
        g = torch.stack([torch.ones_like(y), y.detach(), y.detach().square()])
        if way == 'vmap':
            found.append(torch.vmap(lambda each: torch.autograd.grad(y, wanted, each))(g))  # noqa: B023
        else:
            found.append(torch.autograd.grad(y, wanted, g, is_grads_batched=True))
    assert_same(*found)


@pytest.mark.parametrize('backend', BACKENDS)
def test_a_batch_taken_in_before_backward_changes_no_gradient(backend: str):
    net, _ = made('a strided block with batch norm', backend)
    net.eval()
    want = torch.autograd.grad(net(sample()).square().sum(), list(net.parameters()))
    y = net(sample())
    net.train()(sample() * 3 + 1)
    assert_same(torch.autograd.grad(y.square().sum(), list(net.parameters())), want)


# ---- Layers that do not fit ----

MISFITS: dict[str, Callable[[nn.Module], object]] = {
    'a norm of fewer channels': lambda net: net.conv2.__setitem__(0, nn.InstanceNorm2d(8, affine=True)),
    'a batch norm of fewer channels': lambda net: net.conv1.__setitem__(0, nn.BatchNorm2d(8)),
    'more slopes': lambda net: net.conv1.__setitem__(1, nn.PReLU(32)),
    'fewer slopes': lambda net: net.conv1.__setitem__(1, nn.PReLU(8)),
    'a convolution of other channels': lambda net: net.conv2.__setitem__(2, nn.Conv2d(32, 16, 3, padding=1)),
    'a bias of fewer channels': lambda net: setattr(net.conv2[2], 'bias', nn.Parameter(torch.ones(8))),
    'more channels that come out': lambda net: net.conv2.__setitem__(2, nn.Conv2d(16, 32, 3, padding=1)),
    'a stride': lambda net: setattr(net.conv1[2], 'stride', (2, 2)),
}


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('misfit', MISFITS)
def test_layers_that_do_not_fit_get_torchs_own_error(misfit: str, backend: str):
    net = BACKENDS[backend](BlockPlain2d(16, 16))
    net(sample(torch.float32))
    MISFITS[misfit](net)
    with pytest.raises((RuntimeError, ValueError)):
        net(sample(torch.float32))
    if misfit not in ('a stride', 'more channels that come out'):  # of which each unit by itself is right
        assert 'the layers do not fit one another' in {each.reason for each in net.paths()}


@pytest.mark.parametrize('backend', BACKENDS)
def test_maps_of_other_channels_get_torchs_own_error(backend: str):
    stage = BACKENDS[backend](UNet2d(16, [1, 1], in_planes=16)).conv_down_list[0]
    x = torch.randn(2, 16, 8, 8)
    stage(x)
    for planes in (8, 32):
        with pytest.raises((RuntimeError, ValueError)):
            stage(torch.randn(2, planes, 8, 8))


@pytest.mark.parametrize('backend', BACKENDS)
def test_slopes_may_become_one(backend: str):
    net = BACKENDS[backend](BlockPlain2d(16, 16))
    x = sample(torch.float32)
    net(x)
    for unit in (net.conv1, net.conv2):
        unit[1].weight.data = torch.full((1,), 0.4)
    y = net(x)
    with mdnc.ops.plain():
        torch.testing.assert_close(y, net(x), rtol=1e-4, atol=1e-4)


def test_an_upsampling_that_recomputes_its_factors_runs_plainly():
    block = BlockPlain2d(4, 4, stride=2, scaler='up', upsampling='nearest')
    up = next(each for each in block.conv2 if isinstance(each, nn.Upsample))
    up.recompute_scale_factor = True
    assert 'Upsample recomputes its factors' in {each.reason for each in block.paths()}


# ---- Threads ----


class _Cleared(dict[Any, Any]):
    """Another thread clears it between a look and the next."""

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        self.clear()
        return found


def test_what_was_found_for_shapes_may_be_cleared_by_another_thread(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(convolution, '_DIRECT', _Cleared())
    monkeypatch.setattr(small_blocks, '_PLANS', _Cleared())
    for make in BACKENDS.values():
        net, x = make(BlockPlain2d(16, 16)), sample(torch.float32)
        assert torch.equal(net(x), net(x))


def together(work: Callable[[], None]) -> None:
    """Have four threads do it at once."""
    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def test_threads_that_begin_at_once_get_one_pool(monkeypatch: pytest.MonkeyPatch):
    # Prepared twice, it would have a fork wait for itself.
    made: list[int] = []
    begin = threading.Barrier(4)

    @functools.cache
    def load() -> object:
        made.append(1)
        threading.Event().wait(0.05)
        return object()

    def ask() -> None:
        begin.wait()
        allocator._pool()

    monkeypatch.setattr(allocator, '_made', load)
    allocator._pool.cache_clear()
    try:
        together(ask)
        assert len(made) == 1
    finally:
        allocator._pool.cache_clear()


@pytest.mark.parametrize('backend', BACKENDS)
def test_threads_compute_what_one_does(backend: str):
    net, x = BACKENDS[backend](EncoderNet1d(16, [1, 1])), torch.randn(2, 1, 40)
    want, found = net(x), []

    def work() -> None:
        for _ in range(5):
            y = net(x)
            found.append((y, torch.autograd.grad(y.sum(), list(net.parameters()))))

    together(work)
    assert len(found) == 20
    for y, grads in found:
        assert torch.equal(y, want)
        assert all(torch.equal(one, other) for one, other in zip(grads, found[0][1], strict=True))


# ---- What is kept ----


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('name', NETS)
def test_an_input_is_kept_once(name: str, backend: str):
    # Hooks that offload or compress what is kept are called for each tensor.
    for dtype in (torch.float64, torch.float32):
        (net, _), seen = made(name, backend, dtype), []
        x = sample(dtype)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each: seen.append(each) or each.clone(),  # noqa: B023
            lambda each: each,
        ):
            y = net(x)
        storages = [each.untyped_storage().data_ptr() for each in seen if each.dim() > 3]
        assert len(storages) == len(set(storages)) > 3
        assert all(each.isfinite().all() for each in torch.autograd.grad(y.sum(), list(net.parameters())))
