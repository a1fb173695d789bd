"""Blocks, their weights and the layouts that the tests of the fused path run over."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdnc.ops.convolution import Geometry
from mdnc.ops.definition import Block, Resize, Shortcut, Unit, Weights

SIZES = {1: (9,), 2: (6, 5), 3: (4, 3, 5)}
PLANES, OUT = 3, 4


@dataclass(frozen=True)
class Case:
    name: str
    order: int
    how: Block
    affine: bool = True
    bias: bool = False
    slopes: int = PLANES

    def weights(self, dtype: torch.dtype = torch.float64) -> list[Weights]:
        generator = torch.Generator().manual_seed(len(self.name))

        def values(*shape: int) -> Tensor:
            return (torch.randn(shape, generator=generator, dtype=torch.float64) * 0.5).to(dtype).requires_grad_()

        def of(unit: Unit, planes: int, out: int) -> Weights:
            normed = self.affine and unit.norm is not None
            scale, shift = (values(planes), values(planes)) if normed else (None, None)
            slope = values(planes if self.slopes > 1 else 1) if unit.activator == 'prelu' else None
            if unit.geometry is None:
                return Weights(scale, shift, slope, None, None)
            kernel = values(out, planes, *(2 * unit.geometry.padding[0] + 1,) * self.order)
            return Weights(scale, shift, slope, kernel, values(out) if self.bias else None)

        found, planes, last = [], PLANES, max(i for i, unit in enumerate(self.how.units) if unit.geometry is not None)
        for index, unit in enumerate(self.how.units):
            out = OUT if self.how.adds == 'shortcut' and index >= last else PLANES
            found.append(of(unit, planes, out))
            planes = out
        if self.how.shortcut is not None:
            affine = self.affine and self.how.shortcut.norm is not None
            scale, shift = (values(OUT), values(OUT)) if affine else (None, None)
            found.append(Weights(scale, shift, None, values(OUT, PLANES, *(1,) * self.order), None))
            if self.bias:
                found[-1] = found[-1]._replace(bias=values(OUT))
        return found

    def input(self, dtype: torch.dtype = torch.float64, layout: str = 'contiguous') -> Tensor:
        generator = torch.Generator().manual_seed(7)
        x = torch.randn(2, PLANES, *SIZES[self.order], generator=generator, dtype=torch.float64).to(dtype) + 1
        return laid_out(x, layout).requires_grad_()


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same values, 'contiguous' or with the channels last in memory (which torch has no word for in 1-D)."""
    if layout == 'contiguous':
        return x.contiguous()
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def _cases() -> list[Case]:
    cases = []
    for order in SIZES:
        one, zero, two = (1,) * order, (0,) * order, (2,) * order
        still, strided = Geometry(one, one), Geometry(two, one)
        point, wide = Unit(Geometry(one, zero)), Unit(still)
        up = Resize(factors=(2.0,) * order)
        lifted = Shortcut(Geometry(one, zero), None, up)
        first, tail = Unit(Geometry(one, zero), None, 'null'), Unit(None)
        odd = Resize(size=tuple(2 * n - 1 for n in SIZES[order]))
        cases += [
            Case(f'point{order}d', order, Block((point,))),
            Case(f'strided{order}d', order, Block((Unit(strided),)), bias=True),
            Case(f'no affine{order}d', order, Block((Unit(still, activator='relu'),)), affine=False),
            Case(f'no activation{order}d', order, Block((Unit(still, activator='null'),))),
            Case(f'one slope{order}d', order, Block((wide,)), slopes=1),
            Case(f'no norm{order}d', order, Block((Unit(still, None, 'null'),)), bias=True),
            Case(f'identity{order}d', order, Block((point, wide, point), 'input')),
            Case(
                f'down{order}d', order, Block((point, Unit(strided), point), 'shortcut', Shortcut(Geometry(two, zero)))
            ),
            Case(f'conv first{order}d', order, Block((first, wide, tail), 'input')),
            Case(
                f'conv first, down{order}d',
                order,
                Block((first, Unit(strided), Unit(None, activator='gelu')), 'shortcut', Shortcut(Geometry(two, zero))),
                affine=False,
            ),
            Case(f'no norms{order}d', order, Block((first, Unit(still, None), Unit(None, None)), 'input'), bias=True),
            Case(
                f'up{order}d',
                order,
                Block((wide, Unit(still, resize=up)), 'shortcut', Shortcut(Geometry(one, zero), resize=up)),
            ),
            Case(
                f'conv first, up{order}d',
                order,
                Block((Unit(still, None, 'null', resize=up), Unit(None, None)), 'shortcut', lifted),
                bias=True,
            ),
            Case(
                f'odd{order}d',
                order,
                Block((point, Unit(still, resize=odd)), 'shortcut', Shortcut(Geometry(one, zero), resize=odd)),
            ),
        ]
    return cases


CASES = _cases()
NAMES = [case.name for case in CASES]


def flat(weights: list[Weights]) -> list[Tensor]:
    """The parameters that are there."""
    return [each for own in weights for each in own if each is not None]
