"""fx, export and compile of every family and order, run at sizes of the other parity than the sample's."""

from typing import Any

import pytest
import torch

from mdnc.modules import resnet

SAMPLE = {1: (20,), 2: (12, 14), 3: (8, 10, 8)}
OTHER = {1: (23,), 2: (15, 11), 3: (9, 7, 11)}
FAMILIES = ('EncoderNet', 'DecoderNet', 'AE', 'UNet')
CASES = [(family, order) for order in (1, 2, 3) for family in FAMILIES]

every = pytest.mark.parametrize(('family', 'order'), CASES, ids=lambda value: str(value))


def build(family: str, order: int) -> torch.nn.Module:
    torch.manual_seed(0)
    more: dict[str, Any] = {'out_size': OTHER[order]} if family == 'DecoderNet' else {}
    return getattr(resnet, f'{family}{order}d')(2, [1, 2], block='plain', **more).eval()


def inputs(family: str, order: int, batch: int, other: bool) -> torch.Tensor:
    size = (OTHER if other else SAMPLE)[order]
    return torch.randn(batch, 2) if family == 'DecoderNet' else torch.randn(batch, 1, *size)


@every
def test_fx(family: str, order: int):
    net = build(family, order)
    traced = torch.fx.symbolic_trace(net)
    for other in (False, True):
        x = inputs(family, order, 3, other)
        torch.testing.assert_close(traced(x), net(x))


@every
def test_export_with_dynamic_sizes(family: str, order: int):
    net = build(family, order)
    axes = (0,) if family == 'DecoderNet' else (0, *range(2, 2 + order))
    dynamic = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    program = torch.export.export(net, (inputs(family, order, 2, False),), dynamic_shapes=dynamic)
    for batch in (1, 3):
        x = inputs(family, order, batch, True)
        torch.testing.assert_close(program.module()(x), net(x), rtol=1e-4, atol=1e-5)


@every
def test_compile_with_dynamic_sizes(family: str, order: int):
    net = build(family, order)
    torch.compiler.reset()
    compiled = torch.compile(net, backend='eager', dynamic=True, fullgraph=True)
    for other in (False, True):
        x = inputs(family, order, 2, other)
        torch.testing.assert_close(compiled(x), net(x))
