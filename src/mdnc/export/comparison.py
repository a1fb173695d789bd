"""An exported file against its network."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mdnc import _bundle
from mdnc._files import as_path
from mdnc.export.contract import Shape, given_shape, refuse_others, trial_shapes
from mdnc.export.formats import Opened, opened
from mdnc.export.graph import Scaled
from mdnc.modules import Network
from mdnc.ops import plain

# Of the largest output value.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
ROUNDING = 10


class DiffersError(ValueError):
    """A graph computes something else than its network."""


@dataclass(frozen=True)
class Compared:
    """An exported file and its network at one input.

    Args:
        shape: Shape of the input.
        difference: Largest difference of their answers, relative to the largest value of the network's; infinite where
            the shapes differ.
        allowed: How large it may be: rounding. Where planes of few values blow that up, it is ten times what the
            network's own answer is off its answer in double precision.
    """

    shape: Shape
    difference: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is no more than rounding."""
        return self.difference <= self.allowed


def check(
    path: str | os.PathLike[str], net: Network, sizes: Sequence[int | Sequence[int]] | None = None
) -> tuple[Compared, ...]:
    """Compare an exported file with the network that it was made of.

    Args:
        path: A file of `to_onnx`, `to_torch_export` or `to_aotinductor`.
        net: The network.
        sizes: Spatial sizes of inputs, each one int or one for each axis; by default two that the network chooses.
            A decoder takes only its own.

    Returns:
        What came out at each size.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: An argument has the wrong type.
        ValueError: It is no such file, or of another network; or the network refuses a size.
    """
    path = as_path('check', 'path', path)
    refuse_others('check', net, tuple(TOLERANCE))
    if sizes is not None and (isinstance(sizes, (str, bytes)) or not isinstance(sizes, Sequence) or not sizes):
        raise TypeError(f'check: sizes={sizes!r:.80} must be a sequence of sizes, each an int or one for each axis.')
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist.')
    file = opened(path)
    said = file.facts['network']
    if said != {'name': type(net).__name__, 'arguments': _bundle.plain(net.config, 'config')}:
        name = f'{said.get("name")}'
        raise ValueError(f'{path} is of a {name:.80} with other arguments or of another class than the network.')
    shapes = trial_shapes(net) if sizes is None else tuple(given_shape(net, size) for size in sizes)
    graph = Scaled(net, file.facts['normalisation'], file.facts['target_normalisation'], file.device)
    return compare(file, graph, shapes)


def compare(file: Opened, graph: Scaled, shapes: Sequence[Shape]) -> tuple[Compared, ...]:
    """Compare the answers of a file and of a network at inputs of these shapes."""
    like = next(graph.parameters())
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape in shapes:
        x = torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
        with torch.no_grad(), plain():
            y = graph(x)
            answer = file.run(x)
        difference, allowed = _off(answer, y), TOLERANCE[like.dtype]
        if allowed < difference < 1:
            allowed = max(allowed, ROUNDING * _off(y, _fine(graph, x)))
        found.append(Compared(tuple(shape), difference, allowed))
    return tuple(found)


def _off(answer: Tensor, y: Tensor) -> float:
    if answer.shape != y.shape:
        return float('inf')
    return float((answer - y).abs().max() / y.abs().max().clamp(min=1e-12))


def _fine(graph: Scaled, x: Tensor) -> Tensor:
    with torch.no_grad(), plain():
        y: Tensor = copy.deepcopy(graph).double()(x.double())
    return y
