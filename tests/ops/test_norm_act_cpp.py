"""The C++ kernel of norm and activation: its values, its building, and what happens where it can't be built."""

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mdnc.ops import building, norm_act, norm_act_cpp
from mdnc.ops.norm_act import Affine, Moments, Step

SHAPES = [(2, 5, 41), (3, 300, 7), (1, 64, 9001), (2, 1, 5), (2, 3, 1000)]
LAYOUTS = {
    'planes': lambda x: x,
    'channels last': lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    'neither': lambda x: torch.stack([x, x], -1)[..., 0],
}


@pytest.mark.parametrize('dtypes', list(norm_act_cpp._TYPES), ids=str)
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('activator', ['prelu', 'relu', 'null'])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_values_are_those_of_the_definition(shape, activator, layout, dtypes):
    (dtype, low), lay, c = dtypes, LAYOUTS[layout], shape[1]
    torch.manual_seed(0)  # values next to the activation's kink, which fall to either side of it, are not wanted
    x = lay((torch.randn(shape) * 2 + 3).to(dtype))
    g = torch.randn(shape).to(low)
    parameters = torch.randn(3, 1, c, 1).to(norm_act.accumulator(dtype))
    parameters[2] = parameters[2].to(low)  # as autocast rounds a slope
    affine = Affine(parameters[0], parameters[1], parameters[2] if activator == 'prelu' else None)
    exact, step = Step(1e-5, activator, torch.float64), Step(1e-5, activator, low)
    wide = Affine(*(None if each is None else each.double() for each in affine))
    reference = x.double().contiguous()
    z, at = norm_act.forward(reference, wide, exact)
    want = norm_act.backward(g.double().clone(), None, reference, at, wide, exact)

    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}[low]
    got, moments = norm_act_cpp.forward(x, affine, step)
    assert (got.dtype, got.stride()) == (low, norm_act_cpp._dense(x).stride())
    assert torch.equal(norm_act_cpp.rebuild(x, moments, affine, step)[0], got)
    grads = norm_act_cpp.backward(lay(g.clone()), None, x, moments, affine, step)
    pairs = [(got, z), *zip(moments, at, strict=True), *zip(grads, want, strict=True)]
    for mine, theirs in pairs:
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert (mine.double() - theirs).abs().max() <= tolerance * (1 + theirs.abs().max())


def test_without_affine_and_with_one_slope_for_all():
    x, g, step = torch.randn(2, 4, 30), torch.randn(2, 4, 30), Step(1e-5, 'prelu', torch.float32)
    affine = Affine(None, None, torch.full((1, 1, 1), 0.3))
    z, at = norm_act_cpp.forward(x, affine, step)
    torch.testing.assert_close(z, norm_act.forward(x, affine, step)[0], rtol=1e-5, atol=1e-5)
    got, want = (each.backward(g.clone(), None, x, at, affine, step) for each in (norm_act_cpp, norm_act))
    torch.testing.assert_close((got.x, got.slope), (want.x, want.slope), rtol=1e-4, atol=1e-4)
    assert got.scale is None
    assert got.shift is None


@pytest.mark.parametrize('layout', ['planes', 'channels last'])
def test_planes_far_from_zero_keep_their_variance(layout):
    x = LAYOUTS[layout](torch.randn(2, 3, 50_000, dtype=torch.float64) + 1e4)
    _, at = norm_act_cpp.forward(x.float(), Affine(None, None, None), Step(1e-5, 'null', torch.float32))
    torch.testing.assert_close(
        at.rate.double(),
        norm_act.moments(x.float().double(), Step(1e-5, 'null', torch.float64)).rate,
        rtol=1e-3,
        atol=0,
    )


@pytest.mark.parametrize('layout', ['planes', 'channels last'])
def test_any_number_of_threads_gives_the_same_bits(layout):
    x, step = LAYOUTS[layout](torch.randn(3, 70, 2000)), Step(1e-5, 'prelu', torch.float32)
    affine, before = Affine(*torch.rand(3, 1, 70, 1)), torch.get_num_threads()

    def values() -> list[Tensor]:
        z, at = norm_act_cpp.forward(x, affine, step)
        return [
            z,
            *at,
            *(each for each in norm_act_cpp.backward(x.clone(), None, x, at, affine, step) if each is not None),
        ]

    try:
        torch.set_num_threads(1)
        alone = values()
        torch.set_num_threads(4)
        assert all(torch.equal(*each) for each in zip(alone, values(), strict=True))
    finally:
        torch.set_num_threads(before)


def test_the_gradient_is_written_over_an_activations_gradient_and_over_no_other():
    x, g = torch.randn(2, 2, 3, 50)
    for activator, overwritten in (('relu', True), ('null', False)):
        step = Step(1e-5, activator, torch.float32)
        _, at = norm_act_cpp.forward(x, Affine(None, None, None), step)
        got = norm_act_cpp.backward(g, None, x, at, Affine(None, None, None), step).x
        assert (got.data_ptr() == g.data_ptr()) == overwritten


def test_another_default_device_changes_nothing():
    x, step = torch.randn(2, 4, 30), Step(1e-5, 'relu', torch.float32)
    norm_act_cpp.built.cache_clear()  # it is proved anew
    with torch.device('meta'):
        z, at = norm_act_cpp.forward(x, Affine(None, None, None), step)
        gx = norm_act_cpp.backward(z.clone(), None, x, at, Affine(None, None, None), step).x
    assert {each.device.type for each in (z, *at, gx)} == {'cpu'}


def test_a_profiler_sees_it_by_name():
    x, step = torch.randn(2, 4, 30), Step(1e-5, 'relu', torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        norm_act_cpp.forward(x, Affine(None, None, None), step)
    assert 'mdnc::norm_and_activation' in {each.key for each in profiler.key_averages()}


# ---- Building, each in a process of its own: what was built once stays ----

RUN = """
    import torch, warnings, mdnc
    net = mdnc.modules.resnet.EncoderNet1d(4, [1, 1])
    x = torch.randn(2, 1, 16)
    want = net(x)
    mdnc.optimize(net, keep_memory=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        net(x).sum().backward()
        torch.testing.assert_close(net(x), want, rtol=1e-4, atol=1e-5)
    print(*(str(each.message) for each in caught if 'mdnc' in str(each.message)), sep='\\n')
"""


def run(cache: Path, compiler: object = None) -> list[str]:
    own = {building.CACHE_VARIABLE: str(cache)} | ({} if compiler is None else {'CXX': str(compiler)})
    command = [sys.executable, '-c', textwrap.dedent(RUN)]
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split('\n')[:-1]


def compiler(folder: Path, line: str) -> Path:
    made = folder / 'c++'
    made.write_text(f'#!/bin/sh\n{line}\n')
    made.chmod(made.stat().st_mode | stat.S_IXUSR)
    return made


def test_built_once_and_then_found(tmp_path):
    counting = compiler(tmp_path, f'echo built >> {tmp_path}/log\nexec g++ "$@"')
    assert run(tmp_path / 'cache', counting) == ['']
    assert run(tmp_path / 'cache', counting) == ['']
    assert (tmp_path / 'log').read_text().split() == ['built'] * 2  # kernels and pool
    assert {each.name.split('-')[0] for each in (tmp_path / 'cache').iterdir()} == {'norm_act', 'allocator'}


@pytest.mark.parametrize(
    ('line', 'reason'),
    [
        (None, 'FileNotFoundError'),
        ('echo sources: no such thing >&2; exit 1', 'CalledProcessError: sources: no such thing'),
        (
            'exec g++ $(echo "$@" | sed "s#[^ ]*/norm_act.cpp#wrong.cpp#")',
            'the compiler made code whose values are wrong',
        ),
    ],
    ids=['none', 'failing', 'wrong'],
)
def test_one_warning_and_the_eager_kernels_without_a_compiler_that_works(tmp_path, monkeypatch, line, reason):
    monkeypatch.chdir(tmp_path)
    Path('wrong.cpp').write_text(norm_act_cpp.SOURCE.read_text().replace('- level', '+ level'))
    cxx = compiler(tmp_path, line) if line else '/nowhere/c++'
    (warning,) = run(tmp_path / 'cache', cxx)
    assert 'mdnc.optimize: torch runs what' in warning
    assert reason in warning


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path):
    (tmp_path / 'file').write_text('')
    (warning,) = run(tmp_path / 'file' / 'cache')
    assert 'uncompiled: NotADirectoryError' in warning


@pytest.mark.parametrize('half', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('wide', [True, False])
def test_low_precision_is_rounded_as_torch_rounds(half: torch.dtype, wide: bool):
    # All values of the type, those just beside and halfway between them, those beyond it, infinite ones and NaN.
    each = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(half).float().view(torch.int32)
    near = torch.tensor([0, -1, 1, 2**12, 2**12 + 1, 2**15 - 1, 2**15, 2**15 + 1], dtype=torch.int32)
    x = (each.view(-1, 1) + near).view(torch.float32) if wide else each.view(-1, 1).view(torch.float32).to(half)
    x = x.reshape(1, 64, -1)
    still = Moments(torch.zeros(1, 64, 1), torch.ones(1, 64, 1))
    z, _ = norm_act_cpp.rebuild(x, still, Affine(None, None, None), Step(0.0, 'null', half))
    same = z.view(torch.int16) == x.to(half).view(torch.int16)
    signless = (z == 0) & (x.to(half) == 0)  # x + 0 turns -0 into 0
    assert (same | signless | (z.isnan() & x.isnan())).all()


@pytest.mark.parametrize('activator', ['gelu', 'silu'])
def test_smooth_activations_are_exact_to_a_millionth(activator: str):
    h = torch.linspace(-4, 4, 20_001).view(1, 1, -1)
    step = Step(1e-5, activator, torch.float32, 'fixed')
    at, without = Moments(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)), Affine(None, None, None)
    z, _ = norm_act_cpp.rebuild(h, at, without, step)
    slope = norm_act_cpp.backward(torch.ones_like(h), None, h, at, without, step).x
    wide = h.double().requires_grad_()
    share = torch.erfc(-wide / 2**0.5) / 2 if activator == 'gelu' else wide.sigmoid()
    want = wide * share
    torch.testing.assert_close(z.double(), want.detach(), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(slope.double(), torch.autograd.grad(want.sum(), wide)[0], rtol=0, atol=1e-6)
