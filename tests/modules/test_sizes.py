"""Integer rules, over full small ranges and as properties."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import mdnc
from mdnc.modules import _families, _plan, _sizes

SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=3).map(tuple)


@pytest.mark.parametrize('name', ['_sizes', '_plan', '_families', '_receptive_field'])
def test_no_torch_in_the_integers(name: str):
    source = Path(mdnc.__file__).parent / 'modules' / f'{name}.py'
    nodes = ast.walk(ast.parse(source.read_text()))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    nodes = ast.walk(ast.parse(source.read_text()))
    modules |= {node.module or '' for node in nodes if isinstance(node, ast.ImportFrom)}
    assert modules and not any(module.split('.')[0] == 'torch' for module in modules)


@pytest.mark.parametrize('kernel', [1, 3, 5, 7])
@pytest.mark.parametrize('stride', [1, 2, 3])
def test_shrunk_is_what_a_strided_convolution_gives(kernel: int, stride: int):
    weight = torch.zeros(1, 1, kernel)
    for length in range(1, 41):
        y = F.conv1d(torch.zeros(1, 1, length), weight, stride=stride, padding=_sizes.padding((kernel,)))
        assert tuple(y.shape[2:]) == _sizes.shrunk((length,), (stride,))


@given(SIZES)
def test_up_undoes_down_with_something_to_crop(size: tuple[int, ...]):
    stride = (2,) * len(size)
    back = _sizes.grown(_sizes.shrunk(size, stride), stride)
    assert all(0 <= after - before <= 1 for before, after in zip(size, back, strict=True))


@given(st.integers(1, 500), st.data())
def test_crop_is_centred(have: int, data: st.DataObject):
    want = data.draw(st.integers(1, have))
    start = _sizes.crop_start(have, want)
    end = have - want - start
    assert start >= 0 and 0 <= end - start <= 1


def test_kernel_of_one_is_never_resized():
    assert _sizes.stride((1, 3, 5)) == (1, 2, 2)
    assert _sizes.outer_kernel((1, 3, 5)) == (1, 5, 7)
    assert _sizes.padding((1, 3, 5)) == (0, 1, 2)


@given(st.integers(1, 64), st.integers(1, 64))
def test_smallest_finds_the_first_that_works(first: int, more: int):
    assert _sizes.smallest(lambda side: side >= first, first + more) == first


def frame(layers: tuple[int, ...], kernel: tuple[int, int], block: str, steps: int) -> _families.Frame:
    strides = (_sizes.stride(kernel),) * steps
    widths = tuple(3 * 2**i for i in range(len(layers)))
    return _families.Frame(2, 3, widths, layers, block, (kernel,) * len(layers), strides, _plan.Style())


DRAWN = st.tuples(
    st.lists(st.integers(1, 3), min_size=2, max_size=4).map(tuple),
    st.sampled_from([(3, 3), (1, 3), (5, 1), (1, 1)]),
    st.sampled_from(['plain', 'bottleneck']),
)


def downup(drawn: tuple, skips: bool) -> _plan.Plan:
    layers = drawn[0]
    return _families.autoencoder(frame(*drawn, len(layers) - 1), 1, 1, _families.DownUpParts(skips, layers[:-1]))


@given(DRAWN, st.booleans())
def test_stages_hand_on_what_the_next_one_takes(drawn: tuple, skips: bool):
    whole = frame(*drawn, len(drawn[0]))
    for plan in (
        _families.encoder(whole, 1, _families.Head(2)),
        _families.decoder(replace(whole, widths=whole.widths[::-1]), (40, 40), None, 1),
        downup(drawn, skips),
    ):
        for stage, following in zip(plan.stages, plan.stages[1:], strict=False):
            joined = plan.planes[following.skip] if following.skip else 0
            assert stage.out_planes + joined == following.blocks[0].planes[0]


@given(DRAWN)
def test_a_skip_has_the_planes_that_its_level_hands_on(drawn: tuple):
    plan = downup(drawn, skips=True)
    half = len(plan.stages) // 2
    for level, stage in zip(plan.stages[:half], reversed(plan.stages), strict=False):
        assert stage.skip == f'{level.name}:held' and level.holds
        assert plan.planes[stage.skip] == level.blocks[-1].planes[0]


@given(DRAWN, st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_min_side_is_where_every_stage_begins_to_work(drawn: tuple, size: tuple[int, int]):
    plan = _families.encoder(frame(*drawn, len(drawn[0])), 1, _families.Head(2))
    side = plan.min_side
    assert plan.refusal((side, side)) is None
    assert side == 1 or plan.refusal((side - 1, side - 1)) is not None
    assert (plan.refusal(size) is None) == all(a * b >= 2 for a, b in plan.stage_sizes(size))
