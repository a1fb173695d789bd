"""Networks of options drawn at random: their features are what hooks see, and what is made of them answers alike."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.modules.drawn import built, networks

from mdnc.modules import Network, adapt_inputs, deepen, lift

SOME = settings(max_examples=25, deadline=None, derandomize=True)


def ready(drawn: tuple[str, dict[str, Any]], training: bool = False) -> tuple[Network, torch.Tensor]:
    """A drawn network in double precision with statistics of its own, and an input; others are passed over."""
    torch.manual_seed(0)
    net = built(*drawn)
    assume(isinstance(net, Network))
    net = net.double().train(training)
    for buffer in net.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    size = (23, 14, 11)[: net.plan.order] if net.plan.in_size is None else net.plan.in_size
    assume(net.plan.in_size is not None or net.plan.refusal(size, 2, training) is None)
    return net, torch.randn(2, net.plan.in_planes, *size, dtype=torch.float64)


def answers(net: Network, x: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(1)  # of drop path
    y = net(x)
    return list(y) if isinstance(y, tuple) else [y]


def made_or_refused(make: Callable[[], Network], words: str) -> Network | None:
    """What is made; ``None`` where it is refused with these words."""
    try:
        return make()
    except ValueError as refusal:
        refused = refusal
    with pytest.raises(ValueError, match=words):
        raise refused
    return None


@SOME
@given(networks(), st.booleans(), st.sampled_from(['plain', 'lean', 'least']))
def test_features_are_what_hooks_see(drawn: tuple[str, dict[str, Any]], training: bool, memory: str):
    net, x = ready(drawn, training)
    net.memory = memory
    seen: dict[str, torch.Tensor] = {}
    for stage in net.plan.stages:

        def keep(module: Any, inputs: Any, output: Any, name: str = stage.name) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        net.get_submodule(stage.name).register_forward_hook(keep)
    y = answers(net, x)
    seen = dict(seen)
    torch.manual_seed(1)
    maps = net.features(x)
    assert list(maps) == list(seen) == [info.name for info in net.feature_info]
    for info, (name, each) in zip(net.feature_info, maps.items(), strict=True):
        torch.testing.assert_close(each, seen[name])
        assert each.shape[1] == info.channels
    if not (training and net.config.get('dropout')):
        torch.manual_seed(1)
        torch.testing.assert_close(net.forward_head(net.forward_features(x), x), y[0])


@SOME
@given(networks())
def test_encoder_is_the_way_down(drawn: tuple[str, dict[str, Any]]):
    assume(drawn[0][:-2] in ('AE', 'UNet'))
    net, x = ready(drawn)
    if len(net.config['layers']) == 2 and net.config.get('resize_at') != 'first':
        with pytest.raises(ValueError, match='encoder needs at least two levels'):
            _ = net.encoder
        return
    encoder = net.encoder
    expected = list(net.features(x).values())[: len(encoder.plan.stages)]
    for mine, theirs in zip(encoder.features(x).values(), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    again = type(encoder)(**encoder.config).double().eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(x), encoder(x))
    around = type(net).from_encoder(encoder, out_planes=2)
    torch.testing.assert_close(list(around.features(x).values())[len(expected) - 1], expected[-1])
    rebuilt = type(net)(**around.config).double().eval()
    rebuilt.load_state_dict(around.state_dict())
    torch.testing.assert_close(rebuilt(x), around(x))


@SOME
@given(networks(), st.lists(st.integers(0, 2), min_size=3, max_size=3))
def test_deeper_changes_no_output(drawn: tuple[str, dict[str, Any]], more: list[int]):
    net, x = ready(drawn)
    layers = [depth + each for depth, each in zip(net.config['layers'], more, strict=False)]
    deeper = made_or_refused(lambda: deepen(net, layers), 'deepen: ')
    assume(deeper is not None)
    for mine, theirs in zip(answers(deeper, x), answers(net, x), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert list(type(deeper)(**deeper.config).state_dict()) == list(deeper.state_dict())


@SOME
@given(networks(), st.sampled_from([None, 1, 3]))
def test_lifted_answers_alike(drawn: tuple[str, dict[str, Any]], kernel: int | None):
    assume(not drawn[0].endswith('3d'))
    net, x = ready(drawn)
    lifted = made_or_refused(
        lambda: lift(net, kernel, length=13 if 'out_size' in net.config else None), 'gaps|out_size'
    )
    assume(lifted is not None)
    size = lifted.plan.in_size
    if size != ():
        x = x[:, :, None].expand(*x.shape[:2], 17 if size is None else size[0], *x.shape[2:])
    assume(size is not None or lifted.plan.refusal(tuple(x.shape[2:]), 2, False) is None)
    wanted = answers(net, x if size == () else x[:, :, 0])
    for mine, theirs in zip(answers(lifted, x), wanted, strict=True):
        torch.testing.assert_close(mine, theirs if mine.dim() == theirs.dim() else theirs[:, :, None].expand_as(mine))
    assert list(type(lifted)(**lifted.config).state_dict()) == list(lifted.state_dict())


@SOME
@given(networks(), st.integers(1, 4))
def test_adapted_inputs_answer_alike(drawn: tuple[str, dict[str, Any]], planes: int):
    assume(not drawn[0].startswith('Decoder'))
    net, x = ready(drawn)
    same = x[:, :1]
    old, new = net.plan.in_planes, adapt_inputs(net, planes)
    wanted = answers(net, same.expand(-1, old, *x.shape[2:]))
    for mine, theirs in zip(answers(new, same.expand(-1, planes, *x.shape[2:])), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)
    with pytest.raises(ValueError, match='adapt_inputs: in_planes=0'):
        adapt_inputs(net, 0)
