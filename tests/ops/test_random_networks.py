"""Networks with options drawn at random, by every memory level and backend: the plain path's outputs and gradients."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mdnc
from mdnc.ops import path
from tests.modules.drawn import built, networks


@st.composite
def inputs(draw: st.DrawFn) -> dict[str, Any]:
    """What goes through the network, and how.

    Constant planes and large offsets are for the tests of single norms: through several norms in a row, each of which
    divides by as little as the root of eps, what is compared would be rounding.
    """
    return {
        'sizes': draw(st.lists(st.integers(1, 40), min_size=3, max_size=3)),
        'batch': draw(st.integers(1, 3)),
        'value': draw(st.sampled_from([1e-3, 1.0, 1e4])),
        'memory': draw(st.sampled_from(path.MEMORY_LEVELS[1:])),
        'optimized': draw(st.booleans()),
        'training': draw(st.booleans()),
        'seed': draw(st.integers(0, 99)),
    }


def made(net: nn.Module, name: str, how: dict[str, Any]) -> Tensor:
    """An input that the network takes."""
    torch.manual_seed(how['seed'])
    order = net.plan.order
    if net.plan.in_size == ():
        shape: tuple[int, ...] = (how['batch'] + 1, net.plan.in_planes)
    else:
        given = net.plan.in_size or [min(n, 40 // order) for n in how['sizes'][:order]]
        shape = (how['batch'] + 1, net.plan.in_planes, *given)
    x = torch.randn(shape, dtype=torch.float64)
    return x * how['value']


def results(net: nn.Module, x: Tensor, seed: int) -> list[Tensor] | str:
    """Outputs, the gradients of input and parameters, and the statistics; or the text of a refusal."""
    x = x.clone().requires_grad_()
    torch.manual_seed(seed)
    try:
        y = net(x)
    except ValueError as error:
        return str(error)
    outputs = [y] if isinstance(y, Tensor) else [*y]
    # Gradients of what does not grow with the values.
    torch.manual_seed(seed)
    loss = sum((each * torch.randn(each.shape, dtype=torch.float64).to(each)).sum() for each in outputs)
    wanted = [x, *net.parameters()]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True)
    found = [*outputs, *(torch.zeros_like(own) if g is None else g for own, g in zip(wanted, grads, strict=True))]
    return [each.detach().double().clone() for each in (*found, *net.buffers())]


def check(drawn: tuple[str, dict[str, Any]], how: dict[str, Any]) -> None:
    torch.manual_seed(how['seed'])
    net = built(*drawn)
    assume(isinstance(net, nn.Module))
    net = net.double().train(how['training'])
    with torch.no_grad():  # with shifts of 0, what is interpolated between -1 and 1 meets the kink of an activation
        for each in net.parameters():
            each.add_(0.1 * torch.randn_like(each))
    x, other, third = made(net, drawn[0], how), copy.deepcopy(net), copy.deepcopy(net)
    with mdnc.ops.plain():
        wants = results(other, x, how['seed'])
        assume(not isinstance(wants, str))
        moved = results(third, x + x.abs().max() * 1e-15 * torch.randn_like(x), how['seed'])
    net.memory = how['memory']
    if how['optimized']:
        net = mdnc.optimize(net)
    again, got = copy.deepcopy(net), results(net, x, how['seed'])
    assume(all(bool(each.isfinite().all()) for each in wants))
    # A gradient that is zero but for rounding is rounded like the largest of its kind. Norms of nearly constant planes
    # multiply what is rounded, as they do what moves the input by a few units of its last place.
    scale = max(float(each.abs().max()) for each in wants if each.numel())
    for mine, theirs, near in zip(got, wants, moved, strict=True):
        rounding = 1e-10 * scale + 100 * float((near - theirs).norm())
        assert float((mine - theirs).norm()) <= 1e-6 * float(theirs.norm()) + rounding
    for mine, same in zip(got, results(again, x, how['seed']), strict=True):
        assert torch.equal(mine, same)


FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@given(drawn=networks(), how=inputs())
@FEW
def test_random_networks(drawn: tuple[str, dict[str, Any]], how: dict[str, Any]):
    check(drawn, how)


@pytest.mark.slow  # a minute
@given(drawn=networks(), how=inputs())
@settings(FEW, max_examples=400)
def test_more_random_networks(drawn: tuple[str, dict[str, Any]], how: dict[str, Any]):
    check(drawn, how)
