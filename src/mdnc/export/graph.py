"""A network as a graph of free sizes."""

import copy
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mdnc._torch import needed
from mdnc.export.contract import Ports
from mdnc.modules import Network, _pretrained
from mdnc.modules._inference import Steps


class Scaled(nn.Module):
    """A copy of a network in eval mode, with the steps around it that make its output an answer.

    Args:
        net: The network.
        normalisation: ``{'mean': …, 'std': …}`` of the input's channels, to be taken out before, with ``low`` and
            ``high`` where they are clipped; ``{'by': 'sample'}``, each sample's own; or None.
        target_normalisation: The same of the output's channels, to be put on after; or None.
        device: Where the copy goes.
        answer: The last steps, see `mdnc.modules._inference.Steps`; None leaves it at the scales.
        mirror: Spatial axes, over whose mirror images scores are averaged.

    Raises:
        ValueError: A scale doesn't fit.
    """

    def __init__(
        self,
        net: nn.Module,
        normalisation: dict[str, Any] | None,
        target_normalisation: dict[str, Any] | None,
        device: torch.device | str = 'cpu',
        answer: dict[str, Any] | None = None,
        mirror: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.net = _copied(net, device)
        scales = {'normalisation': normalisation, 'target_normalisation': target_normalisation}
        for (name, given), planes in zip(scales.items(), _planes(net), strict=True):
            _refuse_misfit(name, given, planes)
        self.steps = Steps({**scales, 'answer': answer or {'output': 'values'}, 'mirror': mirror})
        self.steps.ready(device)
        self.several = isinstance(net, Network) and len(net.plan.results(training=False)) > 1

    def forward(self, x: Tensor) -> Any:
        """Answer in the data's own units."""
        if not self.several:
            return self.steps.last(self.steps.mirrored(self.net, x))
        return tuple(map(self.steps.last, self.net(self.steps.before.standard(x))))


def _copied(net: nn.Module, device: torch.device | str) -> nn.Module:
    if not isinstance(net, Network):
        return copy.deepcopy(net).to(device).eval().requires_grad_(False)
    weights = {key: value.detach().to(device, copy=True).contiguous() for key, value in net.state_dict().items()}
    return _pretrained.built(type(net), net.config, weights, f'This {type(net).__name__}')


def _planes(net: nn.Module) -> tuple[int | None, int | None]:
    """How many channels go in and come out, None where that is not known."""
    if not isinstance(net, Network):
        return None, None
    return net.plan.in_planes, net.plan.out_planes


def _refuse_misfit(name: str, given: dict[str, Any] | None, planes: int | None) -> None:
    if given is None:
        return
    if name == 'normalisation' and given == {'by': 'sample'}:
        return
    more = {'low', 'high'} if name == 'normalisation' else set()
    if not isinstance(given, dict) or given.keys() - more != {'mean', 'std'} or len(given) == 3:
        raise ValueError(f"{name}={given!r:.80} must be a dict of 'mean' and 'std'.")
    for values in given.values():
        fits = isinstance(values, Sequence) and (planes is None or len(values) in (1, planes))
        if not fits or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
            raise ValueError(
                f'{name}={given!r:.80} must hold lists of {planes or "as many"} finite numbers, one a channel, or of 1.'
            )
    if min(given['std']) <= 0:
        raise ValueError(f'{name}={given!r:.80} must have a std above 0.')


def captured(graph: Scaled, ports: Ports) -> ExportedProgram:
    """Trace a network with the batch and every length free that may be."""
    like = next(graph.net.parameters())
    sample = torch.zeros(ports.sample, dtype=like.dtype, device=like.device)
    free = {0 if name == 'batch' else int(name[1:]) + 1: Dim.DYNAMIC for name in ports.axes}
    # Else torch takes it that no map has a length of 1, and the graph refuses sizes that the network takes.
    path, purpose = 'torch.fx.experimental._config.patch', 'export sizes that are free'
    patch = needed(path, purpose, lambda found: hasattr(found(backed_size_oblivious=True), '__enter__'))
    with quiet(), torch.no_grad(), patch(backed_size_oblivious=True):
        return torch.export.export(graph, (sample,), dynamic_shapes=(free,))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what exporters say about themselves and about packages that aren't there."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
