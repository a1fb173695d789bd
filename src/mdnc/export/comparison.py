"""An exported file against its network."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mdnc import _bundle
from mdnc.export.contract import Shape, given_shape, trial_shapes
from mdnc.export.formats import Opened, opened
from mdnc.export.graph import Scaled
from mdnc.modules import Network
from mdnc.ops import plain

# Of the largest output value.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
ROUNDING = 10


@dataclass(frozen=True)
class Compared:
    """An exported file and its network at one input.

    Args:
        shape: Shape of the input.
        difference: Largest difference of their answers, relative to the largest value of the network's.
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
        ValueError: It is no such file, or of another network; or the network refuses a size.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist.')
    file = opened(path)
    name = file.facts['network']['name']
    if name != type(net).__name__ or file.facts['network']['arguments'] != _bundle.plain(net.config, 'config'):
        raise ValueError(f'{path} is of a {name} with other arguments or of another class than the network.')
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
