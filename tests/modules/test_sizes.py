"""Integer rules, over full small ranges and as properties."""

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import mdnc
from mdnc.modules import _plan, _sizes

SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=3).map(tuple)


@pytest.mark.parametrize('name', ['_sizes', '_plan'])
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


SHAPES = st.builds(
    _plan.Shape,
    order=st.just(2),
    channel=st.integers(1, 8),
    layers=st.lists(st.integers(1, 4), min_size=2, max_size=5).map(tuple),
    block=st.sampled_from(['plain', 'bottleneck']),
    kernel=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5])),
)


@given(SHAPES, st.booleans())
def test_stages_hand_on_what_the_next_one_takes(shape: _plan.Shape, skips: bool):
    for plan in (
        _plan.encoder(shape, 1, 2),
        _plan.decoder(shape, (40, 40), None, 1),
        _plan.autoencoder(shape, 1, 1, skips=skips),
    ):
        for stage, following in zip(plan.stages, plan.stages[1:], strict=False):
            assert stage.out_planes == following.in_planes


@given(SHAPES)
def test_a_skip_has_the_planes_that_its_level_hands_on(shape: _plan.Shape):
    stages = _plan.autoencoder(shape, 1, 1, skips=True).stages
    count = len(shape.layers)
    for level, stage in zip(stages[: count - 1], reversed(stages[count:]), strict=True):
        last_block = list(level.block_planes())[-1]
        assert stage.skip_planes == last_block[0] and level.holds


@given(SHAPES, st.tuples(st.integers(1, 70), st.integers(1, 70)))
def test_min_side_is_where_every_stage_begins_to_work(shape: _plan.Shape, size: tuple[int, int]):
    plan = _plan.encoder(shape, 1, 2)
    side = plan.min_side
    assert plan.first_starved((side, side)) is None
    assert side == 1 or plan.first_starved((side - 1, side - 1)) is not None
    starved = plan.first_starved(size)
    assert (starved is None) == all(a * b >= 2 for a, b in plan.stage_sizes(size))
