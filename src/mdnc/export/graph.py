"""A network as a graph of free sizes."""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mdnc.export.contract import axes, sample_shape
from mdnc.modules import Network, _pretrained


class Scaled(nn.Module):
    """A copy of a network in eval mode, between the scales of its input's and its output's values.

    Args:
        net: The network.
        normalisation: ``{'mean': …, 'std': …}`` of the input's channels, to be taken out before; or None.
        target_normalisation: The same of the output's channels, to be put on after; or None.
        device: Where the copy goes.

    Raises:
        ValueError: A scale doesn't fit.
    """

    def __init__(
        self,
        net: Network,
        normalisation: dict[str, Any] | None,
        target_normalisation: dict[str, Any] | None,
        device: torch.device | str = 'cpu',
    ) -> None:
        super().__init__()
        weights = {key: value.detach().to(device, copy=True).contiguous() for key, value in net.state_dict().items()}
        self.net = _pretrained.built(type(net), net.config, weights, f'This {type(net).__name__}')
        plan = net.plan
        like = next(iter(weights.values()))
        axes_in, axes_out = (0 if plan.in_size == () else plan.order), (0 if plan.gives_vector else plan.order)
        self.before = _scale('normalisation', normalisation, (plan.in_planes, axes_in), like)
        self.after = _scale('target_normalisation', target_normalisation, (plan.out_planes, axes_out), like)

    def forward(self, x: Tensor) -> Tensor:
        """Answer in the data's own units."""
        if self.before is not None:
            x = (x - self.before.mean) / self.before.std
        y: Tensor = self.net(x)
        return y if self.after is None else y * self.after.std + self.after.mean


class _Scale(nn.Module):
    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer('mean', mean)
        self.std: Tensor
        self.register_buffer('std', std)


def _scale(name: str, given: dict[str, Any] | None, shape: tuple[int, int], like: Tensor) -> _Scale | None:
    if given is None:
        return None
    planes, axes = shape
    if not isinstance(given, dict) or given.keys() != {'mean', 'std'}:
        raise ValueError(f"{name}={given!r:.80} must be a dict of 'mean' and 'std'.")
    for values in given.values():
        fits = isinstance(values, Sequence) and len(values) in (1, planes)
        if not fits or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
            raise ValueError(
                f'{name}={given!r:.80} must hold lists of {planes} finite numbers, one a channel, or of 1.'
            )
    if min(given['std']) <= 0:
        raise ValueError(f'{name}={given!r:.80} must have a std above 0.')
    mean, std = (like.new_tensor(given[key]).view(-1, *(1,) * axes) for key in ('mean', 'std'))
    return _Scale(mean, std)


def captured(graph: Scaled) -> ExportedProgram:
    """Trace a network with the batch and every length free."""
    net = graph.net
    like = next(net.parameters())
    sample = torch.zeros(sample_shape(net), dtype=like.dtype, device=like.device)
    free = {0 if name == 'batch' else int(name[1:]) + 1: Dim.DYNAMIC for name in axes(net)}
    # Else torch takes it that no map has a length of 1, and the graph refuses sizes that the network takes.
    sizes = torch.fx.experimental._config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with quiet(), torch.no_grad(), sizes:
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
