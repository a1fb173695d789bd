"""Optimised networks: equal results, everything that a network must do, a fallback where nothing compiles."""

import copy
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import mdnc
from mdnc.modules.resnet import AE2d, EncoderNet1d, EncoderNet3d, UNet2d
from mdnc.ops import norm_act, norm_act_inductor, path
from mdnc.ops.channels_last import is_channels_last
from mdnc.ops.norm_act import Affine, Step
from tests.ops.cases import laid_out

# What torch's compiler itself warns of.
pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')


def grads(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(net(x).square().sum(), list(net.parameters())))


@pytest.mark.parametrize(
    ('activator', 'dtype', 'layouts'),
    [
        ('prelu', torch.float32, ('contiguous', 'contiguous')),
        ('prelu', torch.float32, ('contiguous', 'channels last')),
        ('null', torch.float32, ('channels last', 'channels last')),
        ('prelu', torch.bfloat16, ('contiguous', 'contiguous')),
    ],
)
def test_compiled_kernels_equal_the_eager_ones(activator: str, dtype: torch.dtype, layouts: tuple[str, str]):
    x, g = (laid_out(each, layout) for each, layout in zip(torch.randn(2, 3, 5, 40).to(dtype), layouts, strict=True))
    parameters = torch.randn(3, 1, 5, 1)
    affine = Affine(parameters[0], parameters[1], parameters[2] if activator == 'prelu' else None)
    step = Step(1e-5, activator, dtype)
    tolerance = {'rtol': 1e-4, 'atol': 1e-4} if dtype == torch.float32 else {'rtol': 5e-2, 'atol': 5e-2}
    z, at = norm_act_inductor.forward(x, affine, step)
    want, at_want = norm_act.forward(x, affine, step)
    torch.testing.assert_close((z, *at), (want, *at_want), **tolerance)
    again, h = norm_act_inductor.rebuild(x, at, affine, step)
    assert torch.equal(again, z)
    got = norm_act_inductor.backward(g, h, x, at, affine, step)
    for mine, theirs in zip(got, norm_act.backward(g, None, x, at_want, affine, step), strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, **tolerance)


def test_equal_results_and_undone():
    # In float64, for in float32 a value next to an activation's kink may fall to its other side.
    net = UNet2d(4, [1, 1, 1]).double()
    x = torch.randn(2, 1, 13, 10, dtype=torch.float64)
    want_y, want = net(x), grads(net, x)
    keys, strides = list(net.state_dict()), [each.stride() for each in net.parameters()]
    assert mdnc.optimize(net) is net
    torch.testing.assert_close(net(x), want_y, rtol=1e-9, atol=1e-9)
    for got, wanted in zip(grads(net, x), want, strict=True):
        assert (got - wanted).norm() <= 1e-9 * wanted.norm() + 1e-9
    assert all(each.fused for each in net.paths())
    assert net(x).is_contiguous(memory_format=torch.channels_last)
    assert list(net.state_dict()) == keys
    first, second = grads(net, x), grads(net, x)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert mdnc.restore(net) is net
    assert torch.equal(net(x), want_y)
    assert [each.stride() for each in net.parameters()] == strides


def test_what_a_network_must_do_it_still_does():
    net = mdnc.optimize(EncoderNet1d(4, [1, 1], memory='leaner'))
    x = torch.randn(2, 1, 16)
    y = net(x)
    for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert again.memory == 'leaner'
        assert torch.equal(again(x), y)
    plainly = EncoderNet1d(4, [1, 1])
    plainly.load_state_dict(net.state_dict())
    torch.testing.assert_close(plainly(x), y, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.compile(net, backend='eager', fullgraph=True)(x), y, rtol=1e-3, atol=1e-4)
    (gx,) = torch.autograd.grad(net(x.requires_grad_()).sum(), x, create_graph=True)
    gx.square().sum().backward()
    with FakeTensorMode():
        mdnc.optimize(EncoderNet1d(4, [1, 1]))(torch.randn(2, 1, 16)).sum().backward()


def test_modules_that_hold_networks_and_modules_that_hold_none():
    holder = nn.Sequential(AE2d(4, [1, 1]), nn.ReLU())
    assert mdnc.optimize(holder)[0].backend == 'optimized'
    assert mdnc.restore(holder)[0].backend == 'torch'
    for function in (mdnc.optimize, mdnc.restore):
        with pytest.raises(ValueError, match=f'{function.__name__}: ReLU holds no network and no block of mdnc'):
            function(nn.ReLU())
        with pytest.raises(TypeError, match=f'{function.__name__}: net=3 must be a module'):
            function(3)
    with pytest.raises(TypeError, match='optimize: keep_memory=1 must be True or False'):
        mdnc.optimize(holder, keep_memory=1)


def test_a_module_of_others_with_a_backend_of_its_own_stays_as_it_is():
    other = nn.ReLU()
    other.backend = 'torch'
    holder = nn.Sequential(AE2d(4, [1, 1]), other)
    assert mdnc.optimize(holder)[0].backend == 'optimized'
    assert other.backend == 'torch'
    with pytest.raises(ValueError, match='ReLU holds no network'):
        mdnc.optimize(other)


def inside(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the last stage gives; the network's output lies as torch's layers would leave it."""
    seen = []
    net.netbody[2].register_forward_hook(lambda module, inputs, y: seen.append(y))
    assert net(x).is_contiguous()
    return seen[0]


def test_signals_stay_channels_last_inside():
    y = inside(mdnc.optimize(EncoderNet1d(4, [1, 1], out_length=None)), torch.randn(2, 1, 16))
    assert y.transpose(1, 2).is_contiguous()
    assert not y.is_contiguous()


@pytest.mark.parametrize('network', [EncoderNet1d, EncoderNet3d, UNet2d])
def test_inputs_of_one_channel_lead_to_channels_last_from_the_first_convolution_on(network):
    net = mdnc.optimize(network(4, [1, 1]))
    first = next(each for each in net.modules() if isinstance(each, (nn.Conv1d, nn.Conv2d, nn.Conv3d)))
    y = path.call(first, torch.randn(2, 1, *(8,) * net.plan.order), net.memory, net.backend)
    assert is_channels_last(y)
    assert not is_channels_last(
        path.call(first, torch.randn(2, 1, *(8,) * net.plan.order), 'lean', mdnc.restore(net).backend)
    )


def test_volumes_stay_channels_last_inside():
    y = inside(mdnc.optimize(EncoderNet3d(4, [1, 1], out_length=None)), torch.randn(2, 1, 8, 9, 7))
    assert y.is_contiguous(memory_format=torch.channels_last_3d)


DISTRIBUTED = """
    import torch, torch.distributed as dist, mdnc
    dist.init_process_group('gloo')
    torch.manual_seed(0)
    net = mdnc.modules.resnet.UNet2d(4, [1, 1])
    plainly = mdnc.modules.resnet.UNet2d(4, [1, 1], memory='plain')
    plainly.load_state_dict(net.state_dict())
    parallel = torch.nn.parallel.DistributedDataParallel(mdnc.optimize(net))
    x = torch.randn(2, 2, 1, 12, 12)  # the same on both; each takes its half
    parallel(x[dist.get_rank()]).square().mean().backward()
    sum(plainly(half).square().mean() for half in x).div(2).backward()
    for mine, theirs in zip(net.parameters(), plainly.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)
    dist.destroy_process_group()
"""


@pytest.mark.slow  # 15 s: two processes, each of which compiles
def test_distributed_data_parallel(tmp_path):
    script = tmp_path / 'distributed.py'
    script.write_text(textwrap.dedent(DISTRIBUTED))
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', str(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
