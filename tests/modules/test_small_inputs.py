"""Blocks of few values are torch's own layers at the level a network has unless told otherwise, on a CPU."""

import pytest
import torch
from torch import Tensor

import mdnc
from mdnc.analysis import memory_forecast, saved_bytes
from mdnc.modules.resnet import BlockPlain1d, BlockPlain2d, EncoderNet1d, EncoderNet2d
from mdnc.ops import fused
from mdnc.ops.backend import DEFAULT, TABLE
from mdnc.ops.limits import LIMITS


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of values of each input of a fused block."""
    calls: list[int] = []
    run = fused.block

    def counted(x: Tensor, *rest: object) -> Tensor:
        calls.append(x.numel())
        return run(x, *rest)

    monkeypatch.setattr(fused, 'block', counted)
    return calls


def kept(net: torch.nn.Module, x: Tensor, level: str) -> int:
    net.memory = level
    return saved_bytes(net, x)


def test_up_to_the_limit_a_block_is_torchs_own_layers_and_beyond_it_is_fused(fused_calls: list[int]):
    block = BlockPlain2d(8, 8)
    at, beyond = torch.randn(4, 8, 32, 32), torch.randn(4, 8, 33, 32)
    assert at.numel() == LIMITS.few_values < beyond.numel()
    with torch.no_grad():
        for x in (at, beyond):
            with mdnc.ops.plain():
                want = block(x)
            torch.testing.assert_close(block(x), want, rtol=1e-5, atol=1e-5)
    assert fused_calls == [beyond.numel()]
    assert kept(block, at, 'lean') == kept(block, at, 'plain')
    assert kept(block, beyond, 'lean') < 0.4 * kept(block, beyond, 'plain')


def test_blocks_that_enlarge_maps_are_fused_at_any_size():
    block, x = BlockPlain2d(16, 8, stride=2, scaler='up'), torch.randn(1, 16, 16, 16)
    assert x.numel() < LIMITS.few_values
    assert kept(block, x, 'lean') < 0.4 * kept(block, x, 'plain')


def test_a_block_is_judged_as_a_whole_after_its_units_ran_one_by_one(fused_calls: list[int]):
    block = BlockPlain2d(8, 8, stride=2, scaler='up', resize_at='last', drop_path=0.5)
    x = torch.randn(2, 8, 8, 8)
    assert x.numel() < LIMITS.few_values
    block.train()(x)
    fused_calls.clear()
    block.eval()(x)
    assert fused_calls == [x.numel()]


@pytest.mark.parametrize('level', ['fast', 'leaner', 'least'])
def test_levels_that_were_chosen_save_at_any_size(level: str):
    net, x = EncoderNet1d(4, [1, 1], 'plain'), torch.randn(2, 1, 32)
    assert kept(net, x, level) < kept(net, x, 'plain')


def test_optimized_networks_keep_their_fast_small_blocks(fused_calls: list[int]):
    mdnc.optimize(EncoderNet1d(16, [1, 1], 'plain'))(torch.randn(2, 1, 32))
    assert fused_calls


def test_blocks_of_many_channels_are_fused_at_any_size(fused_calls: list[int]):
    """With many weights over few positions torch's convolution is slow, see ``Limits.im2col_weights``."""
    channels = LIMITS.few_channels
    with torch.no_grad():
        BlockPlain1d(channels, channels)(torch.randn(1, channels, 4))
        assert not fused_calls
        BlockPlain1d(2 * channels, 2 * channels)(torch.randn(1, 2 * channels, 4))
    assert fused_calls == [8 * channels]


def test_the_limit_is_that_of_the_table(monkeypatch: pytest.MonkeyPatch, fused_calls: list[int]):
    block, by = BlockPlain1d(2, 2), TABLE[DEFAULT, 'cpu']
    tools = by.tools._replace(limits=by.tools.limits._replace(few_values=31))
    monkeypatch.setitem(TABLE, (DEFAULT, 'cpu'), by._replace(tools=tools))
    block(torch.randn(2, 2, 8))
    assert fused_calls == [32]


def test_paths_say_up_to_where():
    net = EncoderNet2d(4, [1, 1])
    assert str(net.paths()[0]).endswith(f': fused, plain for up to {LIMITS.few_values} values')
    net.memory = 'leaner'
    assert str(net.paths()[0]).endswith(': fused')
    net.memory = 'lean'
    assert str(mdnc.optimize(net).paths()[0]).endswith(': fused')


@pytest.mark.parametrize('side', [16, 48, 128])
def test_the_forecast_follows_the_rule_to_the_byte(side: int):
    net = EncoderNet2d(8, [1, 1, 1])
    assert memory_forecast(net, side, 2, optimizer=None).saved == saved_bytes(net, torch.randn(2, 1, side, side))
