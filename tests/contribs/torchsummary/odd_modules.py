"""Modules that make summaries stumble, each with the reason why."""

import random
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn


class Returns(nn.Module):
    """A linear layer whose output is wrapped by ``wrap``."""

    def __init__(self, wrap):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.linear(x))


@dataclass
class Pair:
    mean: torch.Tensor
    spread: torch.Tensor | None = None


class Shared(nn.Module):
    """One layer called twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again = self.first

    def forward(self, x):
        return self.again(self.first(x))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


class Bare(nn.Module):
    """Parameters of its own, in a list, and in a module that is never called."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3), requires_grad=False)
        self.several = nn.ParameterList([torch.ones(2), torch.ones(5)])
        self.unused = nn.Linear(3, 7)

    def forward(self, x):
        return x * self.scale @ self.unused.weight.T


class ScaledSequential(nn.Sequential):
    """A container without a row that has a parameter."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return super().forward(x) * self.scale


class Nested(nn.Module):
    """Calls a container with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([ScaledSequential(nn.Linear(3, 3))])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Restless(nn.Module):
    """Changes everything it can reach while it runs."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer('calls', torch.zeros(()))
        self.seen = None

    def forward(self, x):
        self.train(not self.training)
        self.calls += 1
        self.norm.running_mean = self.norm.running_mean + 1
        self.seen = x
        random.random()
        np.random.rand()  # noqa: NPY002  whatever a model may do
        self.norm.register_forward_hook(lambda *_: None)
        return self.norm(x) + torch.rand(()) + torch.nn.functional.dropout(x)


class Caught(nn.Module):
    """Goes on after a call that raised, with a container that has a parameter."""

    def __init__(self):
        super().__init__()
        self.wrong, self.right = nn.Linear(5, 2), ScaledSequential(nn.Linear(3, 2))

    def forward(self, x):
        try:
            return self.wrong(x)
        except RuntimeError:
            return self.right(x)


class Raises(nn.Module):
    """Fails after its batch norm has run."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        self.norm(x)
        torch.rand(3)
        raise LookupError('no such thing')


class Knot:
    """An output that holds itself."""

    def __init__(self, tensor):
        self.tensor, self.me = tensor, self


WRAPS = {
    'none': (lambda y: None, []),
    'number': (lambda y: 3.5, []),
    'text': (lambda y: 'done', []),
    'no dimensions': (lambda y: y.sum(), [[]]),
    'tuple with none': (lambda y: (y, None, 2), [[-1, 4]]),
    'nested': (lambda y: [y, (y[:, :1], [y[:, :2]])], [[-1, 4], [-1, 1], [-1, 2]]),
    'dict': (lambda y: OrderedDict(a=y, b={'c': y[:, 0]}), [[-1, 4], [-1]]),
    'dataclass': (lambda y: Pair(y), [[-1, 4]]),
    'object': (lambda y: SimpleNamespace(logits=y, loss=y.mean()), [[-1, 4], []]),
    'holds itself': (Knot, [[-1, 4]]),
    'not the batch first': (lambda y: y.T, [[-1, 2]]),
    'joined along the batch': (lambda y: torch.cat((y, y)), [[-1, 4]]),
    'without a batch': (lambda y: y[0], [[-1]]),
}

ROW_PARAMETERS = {
    'shared': (Shared, [12, 0, 0]),
    'tied': (Tied, [9, 3, 0]),
    'outside calls': (Bare, [3]),
    'container with a parameter': (Nested, [12, 1]),
    'container alone': (lambda: ScaledSequential(nn.Linear(3, 3)), [12]),
    'failing call caught': (Caught, [8, 1]),
    'attention reads a layer that it never calls': (lambda: nn.TransformerEncoderLayer(3, 1, 5), None),
    'parametrised': (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), [0, 16]),
    'recurrent': (lambda: nn.LSTM(3, 5, 2), None),
    'half precision': (lambda: nn.Linear(3, 4, dtype=torch.bfloat16), [16]),
    'complex numbers': (lambda: nn.Linear(3, 4, dtype=torch.complex64), [16]),
    'double precision': (lambda: nn.Linear(3, 4, dtype=torch.float64), [16]),
    'no parameters': (nn.ReLU, [0]),
}
