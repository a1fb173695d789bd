"""Which path is taken: hooks, tracers and transforms get torch's own layers, and a network says so."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode

import mdnc
from mdnc.modules.resnet import BlockBottleneck2d, BlockPlain1d, EncoderNet1d, EncoderNet2d, UNet2d, UNet3d
from mdnc.ops import fused, path


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the blocks that ran fused, by their number of units."""
    calls: list[int] = []
    run = fused.block

    def counted(x: Tensor, weights, how, manner):
        calls.append(len(how.units))
        return run(x, weights, how, manner)

    monkeypatch.setattr(fused, 'block', counted)
    return calls


def reasons(net: nn.Module) -> set[str]:
    return {each.reason for each in net.paths() if not each.fused}


OUTER = 2  # the first and the last convolution of a U-Net


@pytest.mark.parametrize('make', [lambda: UNet2d(4, [2, 1, 1]), lambda: UNet3d(4, [1, 1], 'plain')])
def test_every_unit_is_fused_by_default_and_equals_the_plain_path(make: Callable[[], nn.Module], fused_calls):
    net = make()
    x = torch.randn(2, 1, *(9, 10, 7)[: net.plan.order])
    y = net(x)
    blocks = {each.unit.rpartition('.')[0] for each in net.paths()}
    assert len(fused_calls) == len(blocks) + OUTER
    assert not reasons(net)
    with mdnc.ops.plain():
        assert reasons(net) == {'the plain path was asked for'}
        torch.testing.assert_close(net(x), y, rtol=1e-4, atol=1e-4)
    assert len(fused_calls) == len(blocks) + OUTER
    assert not reasons(net)


def test_levels_change_no_gradient():
    net = EncoderNet2d(4, [2, 1]).double()
    x = torch.randn(2, 1, 11, 12, dtype=torch.float64)
    grads = {}
    for level in path.MEMORY_LEVELS:
        net.memory = level
        assert net.memory == level
        grads[level] = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    for level in path.MEMORY_LEVELS[1:]:
        torch.testing.assert_close(grads[level], grads['plain'])


def test_a_wrong_level_is_refused():
    with pytest.raises(ValueError, match=r"EncoderNet2d: memory='slim' must be one of 'plain', 'fast', 'lean'"):
        EncoderNet2d(4, [1, 1], memory='slim')
    net = EncoderNet2d(4, [1, 1], memory='least')
    with pytest.raises(TypeError, match='memory=3'):
        net.memory = 3
    assert net.memory == 'least'
    assert type(net)(**net.config).memory == 'lean'


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        ({'normalizer': 'batch'}, 'BatchNorm1d stands where an instance norm would'),
        ({'layer_order': 'old'}, 'Conv1d stands where an instance norm would'),
        ({'normalizer': 'null'}, 'Conv1d stands where an instance norm would'),
    ],
)
def test_other_blocks_run_plainly_and_say_why(options: dict[str, str], reason: str, fused_calls):
    block = BlockPlain1d(3, 3, **options)
    block(torch.randn(2, 3, 8))
    assert not fused_calls
    assert {each.reason for each in block.paths()} == {reason}


def test_a_hook_is_called_and_the_other_units_stay_fused(fused_calls):
    block = BlockBottleneck2d(3, 5, stride=2)
    seen = []
    handle = block.conv2[1].register_forward_hook(lambda module, args, out: seen.append(out.shape))
    block(torch.randn(2, 3, 8, 8))
    assert seen == [(2, 3, 8, 8)]
    assert fused_calls == [1, 1]
    assert [each.fused for each in block.paths()] == [True, False, True, False]
    assert 'PReLU carries a hook' in str(block.paths()[1])
    handle.remove()
    block(torch.randn(2, 3, 8, 8))
    assert fused_calls == [1, 1, 3]


@pytest.mark.parametrize('child', ['conv1', 'conv1.0', 'in_node', 'in_node.0'])
@pytest.mark.parametrize(
    'register', ['register_forward_pre_hook', 'register_full_backward_hook', 'register_full_backward_pre_hook']
)
def test_hooks_of_every_kind_are_called(child: str, register: str):
    block = BlockPlain1d(3, 5)
    seen = []
    getattr(block.get_submodule(child), register)(lambda *args: seen.append(1))
    block(torch.randn(2, 3, 8, requires_grad=True)).sum().backward()
    assert seen


def test_hooks_on_all_modules_are_called():
    block = BlockPlain1d(3, 3)
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, out: seen.append(type(module)))
    try:
        block(torch.randn(2, 3, 8))
    finally:
        handle.remove()
    assert nn.PReLU in seen


def test_replaced_layers_run(fused_calls):
    block = BlockPlain1d(3, 3)
    nn.utils.parametrizations.weight_norm(block.conv1[2])
    block.conv2[1] = nn.GELU()
    block(torch.randn(2, 3, 8))
    assert not fused_calls
    assert [each.fused for each in block.paths()] == [False, False]


def test_other_tensors_run_plainly(fused_calls):
    class Own(Tensor):
        pass

    net = EncoderNet1d(4, [1, 1])
    x = torch.randn(2, 1, 16)
    y = net(x)
    fused_calls.clear()
    torch.testing.assert_close(net(x.as_subclass(Own)).as_subclass(Tensor), y)
    meta = copy.deepcopy(net).to('meta')
    assert meta(x.to('meta')).shape == y.shape
    block = BlockPlain1d(3, 3)
    block.conv1[0].weight = nn.Parameter(block.conv1[0].weight.detach().as_subclass(Own))
    block(torch.randn(2, 3, 8))
    assert not fused_calls  # the second unit's input is of the other type too
    assert 'a parameter is a' in block.paths()[0].reason


@pytest.mark.filterwarnings('ignore:.torch.jit.script. is deprecated')  # torch's own, inside jvp
def test_transforms_and_tracers_run_plainly(fused_calls):
    net = EncoderNet1d(4, [1, 1])
    x = torch.randn(2, 1, 16)
    stacked = {name: value[None] for name, value in net.state_dict().items()}
    torch.func.vmap(lambda state: torch.func.functional_call(net, state, (x,)))(stacked)
    torch.func.jvp(lambda each: net(each), (x,), (x,))
    torch.func.grad(lambda each: net(each).sum())(x)
    fx.symbolic_trace(net)(x)
    assert torch.export.export(net, (x,)).module()(x).shape == (2, 2)
    with torch.autograd.forward_ad.dual_level():
        net(torch.autograd.forward_ad.make_dual(x, x))
    assert not fused_calls


def test_fake_tensors_take_the_fused_path(fused_calls):
    with FakeTensorMode():
        net = UNet2d(4, [1, 1])
        net(torch.randn(2, 1, 16, 16)).sum().backward()
    assert fused_calls == [1, 3, 3, 3, 1]
    assert all(each.grad is not None for each in net.parameters())


def test_a_block_alone_has_a_level_too():
    block = BlockPlain1d(3, 5)
    assert block.memory == 'lean'
    block.memory = 'plain'
    assert {each.reason for each in block.paths()} == {'the plain path was asked for'}
    with pytest.raises(ValueError, match="BlockPlain1d: memory='slim' must be one of 'plain', 'fast', 'lean'"):
        block.memory = 'slim'
    with pytest.raises(TypeError, match='BlockPlain1d: memory=3 must be one of'):
        block.memory = 3
    assert block.memory == 'plain'


def test_copies_and_pickles_keep_level_and_result():
    net = EncoderNet2d(4, [1, 1], memory='leaner')
    x = torch.randn(2, 1, 9, 9)
    for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert again.memory == 'leaner'
        assert torch.equal(again(x), net(x))


def test_save_on_cpu_and_checkpoint_around_it():
    net = EncoderNet2d(4, [1, 1])
    x = torch.randn(2, 1, 9, 9)
    want = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    with torch.autograd.graph.save_on_cpu():
        y = net(x)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), list(net.parameters())), want)
    y = torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), list(net.parameters())), want)
