"""Blocks of every kind take the fused path and are what torch's own layers are: values, gradients, statistics."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mdnc
from mdnc.modules.resnet import BlockBottleneck2d, BlockBottleneck3d, BlockPlain1d, BlockPlain2d, EncoderNet2d
from mdnc.ops import path
from tests.ops.cases import laid_out

KINDS: dict[str, Callable[[], nn.Module]] = {
    'batch norm': lambda: BlockBottleneck2d(4, 6, stride=2, normalizer='batch'),
    'batch norm and leaky ReLU': lambda: BlockPlain1d(4, 4, normalizer='batch', activator='leaky_relu'),
    'group norm and GELU': lambda: BlockBottleneck3d(
        4, 6, stride=2, normalizer='group', norm_groups=2, activator='gelu'
    ),
    'layer norm and SiLU': lambda: BlockPlain2d(4, 6, stride=2, normalizer='layer', activator='silu'),
    'instance norm and ELU': lambda: BlockPlain1d(4, 6, stride=2, normalizer='inst', activator='elu'),
    'groups': lambda: BlockBottleneck2d(4, 4, stride=2, groups=2),
    'depth-wise': lambda: BlockPlain1d(4, 4, groups=4, normalizer='batch', activator='relu'),
    'an average pool': lambda: BlockPlain2d(4, 6, stride=2, shortcut='pool', normalizer='batch'),
    'an average pool over signals': lambda: BlockPlain1d(4, 6, stride=3, shortcut='pool'),
    'an average pool over volumes': lambda: BlockBottleneck3d(4, 6, stride=2, shortcut='pool', activator='gelu'),
    'nearest': lambda: BlockPlain2d(4, 6, stride=2, scaler='up', upsampling='nearest', normalizer='batch'),
    'nearest in signals': lambda: BlockPlain1d(4, 6, stride=3, scaler='up', upsampling='nearest'),
    'transposed': lambda: BlockPlain2d(
        4, 6, stride=2, scaler='up', upsampling='transposed', normalizer='group', norm_groups=2
    ),
    'transposed in signals': lambda: BlockBottleneck3d(4, 6, stride=2, scaler='up', upsampling='transposed'),
    'squeeze and excitation': lambda: BlockPlain2d(4, 6, stride=2, se=2, normalizer='batch'),
    'stochastic depth': lambda: BlockPlain2d(4, 6, stride=2, drop_path=0.4, normalizer='batch'),
}
BACKENDS: dict[str, Callable[[nn.Module], nn.Module]] = {'torch': lambda net: net, 'optimized': mdnc.optimize}


def sample(block: Any, layout: str = 'contiguous', dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(3, 4, *(8, 7, 6)[: block.order], dtype=torch.float64).to(dtype)
    return laid_out(x, layout).requires_grad_()


def results(block: nn.Module, x: Tensor) -> list[Tensor]:
    torch.manual_seed(2)
    y = block(x)
    y = y.float() if y.dtype in (torch.bfloat16, torch.float16) else y
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weights).sum(), [x, *block.parameters()])]


def made(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    block = KINDS[name]().to(dtype)
    for each in block.modules():
        if isinstance(each, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.uniform_(each.running_mean, -1, 1)
            nn.init.uniform_(each.running_var, 0.5, 2)
    return block


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('training', [True, False], ids=['training', 'eval'])
@pytest.mark.parametrize('name', KINDS)
def test_equals_the_plain_path(name: str, training: bool, backend: str):
    plain = made(name).train(training)
    net = BACKENDS[backend](copy.deepcopy(plain))
    assert all(each.fused for each in net.paths()), [str(each) for each in net.paths()]
    for layout, level in (('contiguous', 'lean'), ('channels last', 'least'), ('contiguous', 'fast')):
        net.memory, x = level, sample(plain, layout)
        with mdnc.ops.plain():
            want = results(plain, sample(plain))
        got = results(net, x)
        for mine, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)
        torch.manual_seed(2)
        with torch.no_grad():
            torch.testing.assert_close(net(x), want[0], rtol=1e-8, atol=1e-8)
        net.load_state_dict(plain.state_dict())


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('name', [name for name in KINDS if 'norm' in name or name == 'stochastic depth'])
def test_statistics_are_kept_as_batch_norm_keeps_them(name: str, backend: str):
    plain = made(name)
    plain.get_submodule('conv1.0').momentum = None
    net = BACKENDS[backend](copy.deepcopy(plain))
    for _ in range(3):
        net(sample(plain))
        with mdnc.ops.plain():
            plain(sample(plain))
    for (key, mine), theirs in zip(net.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=key)


@pytest.mark.parametrize('name', KINDS)
def test_second_derivatives(name: str):
    block = made(name)
    x = sample(block)
    found = []
    for context in (torch.enable_grad, mdnc.ops.plain):
        with context():
            torch.manual_seed(2)
            (gx,) = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
            found.append(torch.autograd.grad(gx.square().sum(), [x, *block.parameters()], allow_unused=True))
    for mine, theirs in zip(*found, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('name', KINDS)
def test_autocast_and_half_types(name: str, dtype: torch.dtype, backend: str):
    plain = made(name, torch.float32)
    exact = copy.deepcopy(plain).double()
    with mdnc.ops.plain():
        truth = results(exact, sample(exact))
    # Torch has no average pool of volumes in half types on a CPU.
    kinds = ((True, torch.float32), (False, dtype))[: 1 if name == 'an average pool over volumes' else 2]
    for autocast, own in kinds:
        block = BACKENDS[backend](copy.deepcopy(plain).to(own))
        x = sample(plain, dtype=own)
        with torch.autocast('cpu', dtype, enabled=autocast):
            got = results(block, x)
            with mdnc.ops.plain():
                want = results(block, x)
            kind = block(x).dtype
            with torch.no_grad():
                assert block(x).dtype == kind
        for mine, theirs, right in zip(got, want, truth, strict=True):
            assert mine.dtype == theirs.dtype
            # Low precision loses as much on either path, or next to nothing.
            assert (mine - right).norm() <= 2 * (theirs - right).norm() + 0.1 * right.norm() + 0.1


def test_frozen_batch_norms_and_those_without_statistics():
    block = BlockPlain2d(4, 6, stride=2, normalizer='batch').double()
    block.conv1[0].eval().requires_grad_(False)
    block.conv2[0] = nn.BatchNorm2d(4, affine=False, track_running_stats=False).double()
    assert all(each.fused for each in block.paths())
    for mode in (True, False):
        block.conv2.train(mode)
        x = sample(block)
        wanted = [x, *(each for each in block.parameters() if each.requires_grad)]
        got = torch.autograd.grad(block(x).square().sum(), wanted)
        with mdnc.ops.plain():
            want = torch.autograd.grad(block(x).square().sum(), wanted)
        torch.testing.assert_close(got, want)


def test_what_takes_statistics_from_all_processes_runs_plainly():
    net = nn.SyncBatchNorm.convert_sync_batchnorm(EncoderNet2d(4, [1, 1], normalizer='batch'))
    reasons = {each.reason for each in net.paths()}
    assert reasons == {'SyncBatchNorm takes its statistics from all processes'}


@pytest.mark.parametrize('normalizer', ['batch', 'group'])
@pytest.mark.parametrize('activator', ['prelu', 'leaky_relu', 'gelu', 'silu'])
def test_two_fifths_are_kept_of_what_torchs_layers_keep(normalizer: str, activator: str):
    net = EncoderNet2d(8, [2, 2], normalizer=normalizer, activator=activator)
    x, kept = torch.randn(4, 1, 64, 64), {}
    for level in ('plain', 'lean'):
        net.memory, seen = level, {}
        known = {each.untyped_storage().data_ptr() for each in (x, *net.state_dict().values())}

        def pack(each: Tensor) -> Tensor:
            storage = each.untyped_storage()
            if storage.data_ptr() not in known:  # noqa: B023
                seen[storage.data_ptr()] = storage.nbytes()  # noqa: B023
            return each

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each):
            net(x)
        kept[level] = sum(seen.values())
    assert kept['lean'] <= 0.4 * kept['plain']


def test_a_shortcut_read_by_itself_goes_with_its_layers():
    block = BlockPlain2d(4, 6, stride=2, se=2)
    block(torch.randn(2, 4, 8, 8))
    assert block.in_node in path._READINGS
    held = len(path._READINGS)
    del block
    assert len(path._READINGS) < held
