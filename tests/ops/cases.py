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

        def of(unit: Unit, width: int, out: int) -> Weights:
            normed = self.affine and unit.norm is not None
            scale, shift = (values(PLANES), values(PLANES)) if normed else (None, None)
            slope = values(self.slopes) if unit.activator == 'prelu' else None
            kernel = values(out, PLANES, *(width,) * self.order)
            return Weights(scale, shift, slope, kernel, values(out) if self.bias else None)

        *inner, last = self.how.units
        out = OUT if self.how.adds == 'shortcut' else PLANES
        found = [of(unit, 2 * unit.geometry.padding[0] + 1, PLANES) for unit in inner]
        found.append(of(last, 2 * last.geometry.padding[0] + 1, out))
        if self.how.shortcut is not None:
            scale, shift = (values(OUT), values(OUT)) if self.affine else (None, None)
            found.append(Weights(scale, shift, None, values(OUT, PLANES, *(1,) * self.order), None))
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
            Case(
                f'up{order}d',
                order,
                Block((wide, Unit(still, resize=up)), 'shortcut', Shortcut(Geometry(one, zero), resize=up)),
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
