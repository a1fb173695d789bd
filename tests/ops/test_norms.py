"""Every norm and activation, by every backend, is what torch's own layers give: values, gradients, statistics."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mdnc.ops import norm_act, norm_act_cpp
from mdnc.ops.norm_act import Affine, Running, Step

MODULES = {'torch': norm_act, 'C++': norm_act_cpp}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    'contiguous': lambda x: x.contiguous(),
    'channels last': lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
}
ACTIVATE: dict[str, Callable[..., Tensor]] = {
    'prelu': lambda h, alpha, slope: F.prelu(h, slope),
    'relu': lambda h, alpha, slope: F.relu(h),
    'leaky_relu': lambda h, alpha, slope: F.leaky_relu(h, alpha),
    'elu': lambda h, alpha, slope: F.elu(h, alpha),
    'gelu': lambda h, alpha, slope: F.gelu(h),
    'silu': lambda h, alpha, slope: F.silu(h),
    'null': lambda h, alpha, slope: h,
}


def normalised(x: Tensor, step: Step, scale: Tensor, shift: Tensor, seen: tuple[Tensor, Tensor]) -> Tensor:
    if step.norm == 'group':
        return F.group_norm(x, step.groups, scale, shift, step.eps)
    if step.norm == 'instance':
        return F.instance_norm(x, None, None, scale, shift, eps=step.eps)
    fixed = step.norm == 'fixed'
    return F.batch_norm(x, *(seen if fixed else (None, None)), scale, shift, not fixed, eps=step.eps)


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    groups = draw(st.sampled_from([1, 2, 3]))
    norm = draw(st.sampled_from(norm_act.NORMS))
    return {
        'shape': (draw(st.integers(1, 4)), groups * draw(st.integers(1, 13)), draw(st.integers(2, 40))),
        'step': Step(
            draw(st.sampled_from([1e-5, 1e-3])),
            draw(st.sampled_from(norm_act.ACTIVATORS)),
            draw(st.sampled_from([torch.float64, torch.float32])),
            norm,
            groups if norm == 'group' else 0,
            draw(st.sampled_from([0.01, 1.0, 0.3])),
        ),
        'layout': draw(st.sampled_from(list(LAYOUTS))),
        'size': draw(st.sampled_from([1.0, 1.0, 1e-30, 1e-3, 1e4, 1e15])),
        'offset': draw(st.sampled_from([0.0, 0.0, 1.0, 1e4])),
        'constant': draw(st.booleans()),
        'seed': draw(st.integers(0, 99)),
    }


@pytest.mark.parametrize('backend', MODULES)
@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_every_norm_and_activation_is_torchs(backend: str, case: dict[str, Any]):
    torch.manual_seed(case['seed'])
    own, step, shape = MODULES[backend], case['step'], case['shape']
    c = shape[1]
    x = torch.randn(shape, dtype=torch.float64) * case['size'] + case['offset'] * case['size']
    if case['constant']:
        x[:, : max(1, c // 2)] = case['offset']
    x = LAYOUTS[case['layout']](x.to(step.dtype))
    g = LAYOUTS[case['layout']](torch.randn(shape, dtype=step.dtype))
    scale, shift, slope = torch.randn(3, c, dtype=step.dtype)
    seen = torch.randn(c, dtype=step.dtype) * case['size'], torch.rand(c, dtype=step.dtype) * case['size'] ** 2
    wanted = [each.double().contiguous().requires_grad_() for each in (x, scale, shift, slope)]
    want_h = normalised(wanted[0], step, *wanted[1:3], tuple(each.double() for each in seen))
    want = ACTIVATE[step.activator](want_h, step.alpha, wanted[3])
    grads = torch.autograd.grad(want, wanted, g.double(), allow_unused=True)

    planar = [each.view(1, c, 1) for each in (scale, shift, slope)]
    affine = Affine(*planar[:2], planar[2] if step.activator == 'prelu' else None)
    if step.norm == 'fixed':
        at = norm_act.given(*seen, step.eps, step.dtype)
        z = own.rebuild(x, at, affine, step)[0]
    else:
        z, at = own.forward(x, affine, step)
    again = own.rebuild(x, at, affine, step)[0]
    got = own.backward(g.clone(), None, x, at, affine, step)

    # What rounding alone may do: x − μ is off by an ulp of the largest value of its plane, r by as much of itself.
    ulp = torch.finfo(step.dtype).eps
    spread = (want_h.detach() - shift.double().view(1, c, 1)).abs().max().clamp_min(1.0)
    lost = ulp * (1 + ((x.double() - at.mean.double()).abs() + x.double().abs()).max() * at.rate.double().max())
    room = (64 * lost * spread * scale.abs().max().clamp_min(1)).item()
    assert (z.double() - want).abs().max() <= room
    assert (again - z).abs().max() <= room
    for mine, theirs in zip(got, grads, strict=True):
        if mine is None:
            continue
        # A value beside an activation's kink may fall to its other side.
        if step.activator in ('prelu', 'relu', 'leaky_relu', 'elu') and (want_h.detach().abs() < room).any():
            continue
        most = g.abs().max() * spread * (at.rate.max() * scale.abs().max() if mine is got.x else x.numel() / c)
        assert (mine.double().flatten() - theirs.flatten()).abs().max() <= room * (1 + slope.abs().max()) * most


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('momentum', [0.1, None])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('backend', MODULES)
def test_running_statistics_are_those_of_batch_norm(
    backend: str, layout: str, momentum: float | None, dtype: torch.dtype
):
    norm = nn.BatchNorm1d(6, momentum=momentum).to(dtype)
    mean, variance = torch.zeros(6, dtype=dtype), torch.ones(6, dtype=dtype)
    for batch in range(1, 4):
        x = LAYOUTS[layout]((torch.randn(3, 6, 9) * batch + 2).to(dtype))
        norm(x.contiguous())
        running = Running(mean, variance, momentum or 1 / batch)
        MODULES[backend].forward(x, Affine(None, None, None), Step(norm.eps, 'null', dtype, 'batch'), running)
        tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(mean, norm.running_mean, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(variance, norm.running_var, rtol=tolerance, atol=tolerance)
