"""Which path is taken: hooks, tracers and transforms get torch's own layers, and a network says so."""

import copy
import gc
import pickle
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode

import mdnc
from mdnc.modules.resnet import (
    BlockBottleneck2d,
    BlockPlain1d,
    BlockPlain2d,
    EncoderNet1d,
    EncoderNet2d,
    UNet2d,
    UNet3d,
)
from mdnc.ops import fused, path
from mdnc.ops.limits import LIMITS


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the blocks that ran fused, by their number of units."""
    calls: list[int] = []
    run = fused.block

    def counted(x: Tensor, weights, how, *way):
        calls.append(len(how.units))
        return run(x, weights, how, *way)

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
        ({'padding_mode': 'reflect'}, 'Conv1d has dilation or padding of another kind'),
        ({'padding_mode': 'circular', 'layer_order': 'old'}, 'Conv1d has dilation or padding of another kind'),
    ],
)
def test_other_blocks_run_plainly_and_say_why(options: dict[str, str], reason: str, fused_calls):
    block = BlockPlain1d(3, 3, **options)
    block(torch.randn(2, 3, 8))
    assert not fused_calls
    assert {each.reason for each in block.paths()} == {reason}


@pytest.mark.parametrize('options', [{'layer_order': 'old'}, {'normalizer': 'null'}, {'normalizer': 'batch'}], ids=str)
@pytest.mark.parametrize('stride', [1, 2])
def test_blocks_of_each_order_are_fused_as_a_whole(options: dict[str, str], stride: int, fused_calls):
    block = BlockBottleneck2d(3, 3, stride=stride, **{'layer_order': 'old', **options})
    x = torch.randn(2, 3, 9, 8, requires_grad=True)
    y = block(x)
    assert fused_calls == [4]  # a convolution, two from norm to convolution, and what follows the last of them
    assert not reasons(block)
    got = torch.autograd.grad(y.square().sum(), (x, *block.parameters()))
    with mdnc.ops.plain():
        want = block(x)
        wants = torch.autograd.grad(want.square().sum(), (x, *block.parameters()))
    torch.testing.assert_close((y, *got), (want, *wants), rtol=1e-4, atol=1e-4)


def test_a_hook_is_called_and_the_other_units_stay_fused(fused_calls):
    block = BlockBottleneck2d(3, 5, stride=2)
    seen = []
    handle = block.conv2[1].register_forward_hook(lambda module, args, out: seen.append(out.shape))
    block(torch.randn(2, 3, 8, 8))
    assert seen == [(2, 3, 8, 8)]
    assert fused_calls == [1, 1, 0]  # two units, and the shortcut by itself
    assert [each.fused for each in block.paths()] == [True, False, True, True]
    assert 'PReLU carries a hook' in str(block.paths()[1])
    handle.remove()
    block(torch.randn(2, 3, 8, 8))
    assert fused_calls == [1, 1, 0, 3]


@pytest.mark.parametrize('child', ['conv1', 'conv1.0', 'in_node', 'in_node.0'])
@pytest.mark.parametrize(
    'register', ['register_forward_pre_hook', 'register_full_backward_hook', 'register_full_backward_pre_hook']
)
def test_hooks_of_every_kind_are_called(child: str, register: str):
    block = BlockPlain1d(3, 5)
    block(torch.randn(2, 3, 8))  # its layers have been read
    seen = []
    getattr(block.get_submodule(child), register)(lambda *args: seen.append(1))
    block(torch.randn(2, 3, 8, requires_grad=True)).sum().backward()
    assert seen


def test_hooks_on_all_modules_are_called():
    block = BlockPlain1d(3, 3)
    block(torch.randn(2, 3, 8))
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
    block.conv2[1] = nn.Hardswish()
    block(torch.randn(2, 3, 8))
    assert not fused_calls
    assert [each.fused for each in block.paths()] == [False, False]


def twice_the_class(block: nn.Module) -> None:
    class Twice(nn.PReLU):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    block.conv1[1].__class__ = Twice


def without_stride(block: nn.Module) -> None:
    block.conv2[2].stride = block.in_node[0].stride = (1, 1)


def new(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach() * 1.5 + 0.1)


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    'a layer replaced': lambda block: block.conv1.__setitem__(1, nn.PReLU(1, 0.7).double()),
    'a layer added': lambda block: block.conv1.append(nn.Tanh()),
    'layers left out': lambda block: block.conv1.__delitem__(slice(0, 2)),
    'a unit replaced': lambda block: setattr(block, 'conv1', BlockBottleneck2d(3, 5, activator='relu').double().conv1),
    'the last unit replaced': lambda block: setattr(block, 'conv3', BlockBottleneck2d(3, 5).double().conv3),
    'the shortcut replaced': lambda block: setattr(
        block, 'in_node', BlockBottleneck2d(3, 5, stride=2).double().in_node
    ),
    'a weight replaced': lambda block: setattr(block.conv2[2], 'weight', new(block.conv2[2].weight)),
    'by its equal': lambda block: setattr(
        block.conv2[1], 'weight', nn.Parameter(block.conv2[1].weight.detach().clone())
    ),
    'weights tied': lambda block: setattr(block.conv2[0], 'weight', block.conv1[0].weight),
    'a weight frozen': lambda block: block.conv2[2].weight.requires_grad_(False),
    'all frozen': lambda block: block.requires_grad_(False),
    'values set': lambda block: setattr(block.conv1[2].weight, 'data', block.conv1[2].weight.data * 2),
    'values loaded': lambda block: block.load_state_dict(
        {k: v * 1.5 for k, v in block.state_dict().items()}, assign=True
    ),
    'another eps': lambda block: setattr(block.conv1[0], 'eps', 0.5),
    'another stride': without_stride,
    'another forward': lambda block: setattr(block.conv1[1], 'forward', lambda x: x * block.conv1[1].weight.sum()),
    'another class': twice_the_class,
    'weight norm': lambda block: nn.utils.parametrizations.weight_norm(block.conv1[2]),
    'another dtype': lambda block: block.float(),
    'the plain level': lambda block: setattr(block, 'memory', 'plain'),
    'evaluation': lambda block: block.eval(),
    'bias added': lambda block: setattr(block.conv3[2], 'bias', nn.Parameter(torch.ones(5, dtype=torch.float64))),
}


@pytest.mark.parametrize('change', CHANGES)
def test_what_changes_after_the_layers_were_read_counts(change: str):
    block, x = BlockBottleneck2d(3, 5, stride=2).double(), torch.randn(2, 3, 8, 6, dtype=torch.float64)
    block(x)
    CHANGES[change](block)
    x = x.to(next(block.parameters()).dtype).requires_grad_()
    wanted = [x, *(each for each in block.parameters() if each.requires_grad)]
    y = block(x)
    got = torch.autograd.grad(y.square().sum(), wanted)
    with mdnc.ops.plain():
        want_y = block(x)
        want = torch.autograd.grad(want_y.square().sum(), wanted)
    torch.testing.assert_close((y, *got), (want_y, *want), rtol=1e-4, atol=1e-4)


def test_what_was_read_is_of_these_layers_alone_and_goes_with_them():
    block, x = BlockBottleneck2d(3, 3), torch.randn(2, 3, 8, 8)
    y = block(x)
    for again in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(again(x), y)
        again.conv1[2].weight.data.mul_(2)
        assert not torch.equal(again(x), y)
        assert torch.equal(block(x), y)
    unit = weakref.ref(block.conv1)
    assert block.conv1 in path._READINGS
    del block, again
    gc.collect()
    assert unit() is None


def calls(run: Callable[[], object]) -> int:
    """Python calls of this package's functions."""
    root, count = str(Path(mdnc.__file__).parent), 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == 'call' and frame.f_code.co_filename.startswith(root)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


def test_python_calls_of_a_block():
    # Small networks, and large devices, wait for Python.
    block, x = BlockBottleneck2d(16, 16), torch.randn(2, 16, 48, 48, requires_grad=True)
    assert x.numel() > LIMITS.few_values
    block(x).sum().backward()
    y = [block(x)]
    assert calls(lambda: y.append(block(x))) <= 58
    g = torch.ones_like(y[1])
    assert calls(lambda: torch.autograd.grad(y[1], [x, *block.parameters()], g)) <= 62


@pytest.mark.parametrize('block', [BlockPlain2d(8, 8), BlockPlain2d(8, 4)], ids=['input added', 'shortcut added'])
def test_a_block_of_few_values_is_asked_once(block: nn.Module):
    x = torch.randn(2, 8, 8, 8)
    assert x.numel() <= LIMITS.few_values
    found = {}
    for level in ('plain', 'lean'):
        block.memory = level
        block(x)
        found[level] = calls(lambda: block(x))
    assert found['lean'] <= found['plain']


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
    assert b'mdnc.ops' not in pickle.dumps(mdnc.optimize(net))  # modules of which may be renamed


def test_save_on_cpu_and_checkpoint_around_it():
    net = EncoderNet2d(4, [1, 1])
    x = torch.randn(2, 1, 9, 9)
    want = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    with torch.autograd.graph.save_on_cpu():
        y = net(x)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), list(net.parameters())), want)
    y = torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), list(net.parameters())), want)
