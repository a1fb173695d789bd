"""An exported file against its network."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdnc._files import as_path
from mdnc.export.contract import Shape, given_shape, identity, ports, refuse_others
from mdnc.export.formats import Opened, opened
from mdnc.export.graph import Scaled
from mdnc.modules._inference import Answer
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
        difference: Largest difference of their answers, relative to the largest value of the network's; of class
            numbers the share that differs; infinite where the shapes differ.
        allowed: How large it may be: rounding. Where planes of few values blow that up, it is ten times what the
            network's own answer is off its answer in double precision.

    Example:
        >>> import pathlib, tempfile
        >>> import mdnc
        >>> net = mdnc.modules.resnet.EncoderNet1d(4, [1, 1]).eval()
        >>> exported = mdnc.export.to_torch_export(net, pathlib.Path(tempfile.mkdtemp()) / 'net.pt2')
        >>> [each.difference <= each.allowed for each in exported.compared]
        [True, True]
    """

    shape: Shape
    difference: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is no more than rounding."""
        return self.difference <= self.allowed


def check(
    path: str | os.PathLike[str], net: nn.Module, sizes: Sequence[int | Sequence[int]] | None = None
) -> tuple[Compared, ...]:
    """Compare an exported file with the network that it was made of.

    Args:
        path: A file of `to_onnx`, `to_torch_export` or `to_aotinductor`.
        net: The network, or the `mdnc.checkpoints.Answer` with it.
        sizes: Spatial sizes of inputs, each one int or one for each axis; by default two that the network chooses.
            A decoder takes only its own.

    Returns:
        What came out at each size.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: An argument has the wrong type.
        ValueError: It is no such file, or of another network; or the network refuses a size.

    Example:
        >>> import pathlib, tempfile
        >>> import mdnc
        >>> net = mdnc.modules.resnet.EncoderNet1d(4, [1, 1]).eval()
        >>> exported = mdnc.export.to_torch_export(net, pathlib.Path(tempfile.mkdtemp()) / 'net.pt2')
        >>> [each.shape for each in mdnc.export.check(exported.path, net, sizes=[40, 57])]
        [(3, 1, 40), (3, 1, 57)]
    """
    path = as_path('check', 'path', path)
    refuse_others('check', net, tuple(TOLERANCE))
    if sizes is not None and (isinstance(sizes, (str, bytes)) or not isinstance(sizes, Sequence) or not sizes):
        raise TypeError(f'check: sizes={sizes!r:.80} must be a sequence of sizes, each an int or one for each axis.')
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist.')
    file = opened(path)
    net = net.network if isinstance(net, Answer) else net
    said = file.facts
    if said['network'] != identity(net):
        name = f'{said["network"].get("name")}'
        raise ValueError(f'{path} is of a {name:.80} with other arguments or of another class than the network.')
    shapes = ports(net, said['data'] or {}).trials if sizes is None else tuple(given_shape(net, size) for size in sizes)
    scales = said['normalisation'], said['target_normalisation']
    graph = Scaled(net, *scales, file.device, said.get('answer'), said.get('mirror') or ())
    return compare(file, graph, shapes)


def compare(file: Opened, graph: Scaled, shapes: Sequence[Shape]) -> tuple[Compared, ...]:
    """Compare the answers of a file and of a network at inputs of these shapes, in the units that they take."""
    like = next(graph.parameters())
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape in shapes:
        x = graph.steps.before.own(torch.randn(shape, generator=generator, dtype=like.dtype)).to(like.device)
        with torch.no_grad(), plain():
            y = graph(x)
            answer = file.run(x)
        difference, allowed = _off(answer, y), TOLERANCE[like.dtype]
        if allowed < difference < 1:
            allowed = max(allowed, ROUNDING * _off(y, _fine(graph, x)))
        found.append(Compared(tuple(shape), difference, allowed))
    return tuple(found)


def predicted(graph: Scaled, answer: Answer, shape: Shape) -> Compared:
    """Compare a graph with what ``mdnc predict`` answers to an input of this shape."""
    like = next(graph.parameters())
    generator = torch.Generator().manual_seed(1)
    x = graph.steps.before.own(torch.randn(shape, generator=generator, dtype=like.dtype)).to(like.device)
    with torch.no_grad(), plain():
        return Compared(tuple(shape), _off(graph(x), answer.predict(x)), TOLERANCE[like.dtype])


def _off(answer: Any, y: Any) -> float:
    if isinstance(y, tuple):
        return max(map(_off, answer, y))
    if answer.shape != y.shape:
        return float('inf')
    if not y.is_floating_point():  # class numbers are right or wrong
        return float((answer != y).double().mean())
    return float((answer - y).abs().max() / y.abs().max().clamp(min=1e-12))


def _fine(graph: Scaled, x: Tensor) -> Any:
    with torch.no_grad(), plain():
        return copy.deepcopy(graph).double()(x.double())
