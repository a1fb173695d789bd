"""Several trained networks that answer as one, and how far they are apart."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdnc.modules._inference import Answer, Steps, evaluating, numbers_of_classes
from mdnc.modules._tiling import single

_NAMES = ('classes', 'columns', 'channels', 'reading')
_APART = 5.0  # times: statistics of parts of one data set are closer to each other, those of other units are not
_TOLD_CLASSES = ('probabilities', 'classes')


class Averaged(NamedTuple):
    """Answers of averaged networks, and how far these are apart."""

    answer: Any
    spread: Any


class Agreement:
    """The mean of what networks say of the same inputs, and its spread; they are taken up one at a time.

    Args:
        output: What they give, see `mdnc.modules._inference.Steps`.
        spread: Whether the spread is wanted.
    """

    def __init__(self, output: str, spread: bool = False) -> None:
        self._output, self._wanted, self._count = output, spread, 0
        self._first = ''
        self._mean: Tensor | None = None
        self._more: Tensor | None = None  # sum of squares around the mean, or of the networks' own entropies

    def add(self, values: Tensor, name: str = 'another network') -> None:
        """Take up probabilities ``(B, K, ...)``, or values, of one network more.

        Args:
            values: What it gives.
            name: What errors call it.

        Raises:
            ValueError: They have another shape than those of the networks before.
        """
        values = single(values)
        self._count += 1
        self._first = self._first or name
        before = torch.zeros_like(values) if self._mean is None else self._mean
        if before.shape != values.shape:
            raise ValueError(
                f'{self._first} gives {tuple(before.shape[1:])} a sample, {name} {tuple(values.shape[1:])}: '
                'they have no mean'
            )
        self._mean = before + (values - before) / self._count
        if self._wanted:
            further = (values - before) * (values - self._mean) if self._output == 'values' else self._entropy(values)
            self._more = further if self._more is None else self._more + further

    def answer(self) -> Tensor:
        """The mean, or of classes the number of the one with the highest mean probability."""
        assert self._mean is not None
        return numbers_of_classes(self._mean) if self._output == 'classes' else self._mean

    def spread(self) -> Tensor:
        """How far the networks are apart.

        Returns:
            Of values the standard deviation of each, ``(B, K, ...)`` (divided by the number of networks). Of classes
            ``(B, 2, ...)`` in nats: the entropy of the mean, and their disagreement, which is that entropy less the
            mean of the networks' own (mutual information). Of classes that may be there together the same for each,
            ``(B, 2 K, ...)``: entropies first.
        """
        assert self._mean is not None
        assert self._more is not None
        if self._output == 'values':
            return (self._more / self._count).clamp(min=0).sqrt()
        entropy = self._entropy(self._mean)
        return torch.cat((entropy, (entropy - self._more / self._count).clamp(min=0)), 1)

    def _entropy(self, shares: Tensor) -> Tensor:
        own: Tensor = torch.special.entr(shares)
        if self._output != 'shares':
            return own.sum(1, keepdim=True)
        absent: Tensor = torch.special.entr(1 - shares)
        return own + absent


def spread_names(output: str, names: Sequence[str]) -> list[str]:
    """What the channels of a spread are called.

    Args:
        output: What the networks give.
        names: Names of the quantities or classes.
    """
    if output == 'values':
        return [f'spread {name}' for name in names]
    kinds = ('entropy', 'disagreement')
    return [f'{kind} {name}' for kind in kinds for name in names] if output == 'shares' else list(kinds)


class Ensemble(Answer):
    """Trained networks that answer as one: by the mean of their probabilities, or of their values.

    Args:
        members: The answers of the networks, at least one, which tell the same classes or quantities of the same kind
            of samples. Each takes its own scales and tiles.
        names: What errors call them, such as the folders of their runs.

    Raises:
        ValueError: There is none, or two of them do not go together; the text names them.

    Example:
        >>> import mdnc, torch
        >>> nets = [mdnc.modules.resnet.EncoderNet1d(4, [1, 1], out_length=2) for _ in range(3)]
        >>> answers = [mdnc.checkpoints.Answer(net, {'answer': {'output': 'probabilities'}}) for net in nets]
        >>> ensemble = mdnc.checkpoints.Ensemble(answers)
        >>> ensemble.predict(torch.randn(5, 1, 32)).shape
        torch.Size([5, 2])
        >>> ensemble.spread().predict(torch.randn(5, 1, 32)).shape
        torch.Size([5, 2])
    """

    def __init__(self, members: Sequence[Answer], names: Sequence[str] | None = None) -> None:
        if not members or not all(isinstance(each, Answer) for each in members):
            raise ValueError('Ensemble: members must be at least one Answer')
        known = [f'network {number + 1}' for number in range(len(members))] if names is None else list(names)
        for each, name in zip(members[1:], known[1:], strict=True):
            _refuse_unlike(known[0], members[0].data, name, each.data)
        super().__init__(members[0].network, members[0].data)
        given = [members[0], *(each.giving(self.steps.output) for each in members[1:])]
        self.members: Any = torch.nn.ModuleList(given)
        self.known_as = known
        self._output = self.steps.output

    def forward(self, x: Tensor, lengths: Any = None) -> Tensor:
        """Answer inputs ``(B, C, L1, ...)`` in the data's own units."""
        return self.agreement(x, lengths).answer()

    def agreement(self, x: Tensor, lengths: Any = None, spread: bool = False) -> Agreement:
        """What the networks say of whole inputs."""
        found = Agreement(self._output, spread)
        for each, name in zip(self.members, self.known_as, strict=True):
            found.add(each.steps.soft(each.steps.whole(each.network, x, lengths)), name)
        return found

    def averaged(self, x: Tensor, lengths: Any = None) -> Averaged:
        """Answer a batch and say how far the networks are apart; each is run once."""
        weight = next(self.network.parameters(), None)
        with torch.no_grad(), evaluating(self):
            found = self.agreement(x if weight is None else x.to(weight.device), lengths, spread=True)
            return Averaged(found.answer().to(x.device), found.spread().to(x.device))

    def _slabs(self, x: Tensor, spread: bool) -> Iterator[tuple[Any, ...]]:
        for start, parts in _aligned([each.steps.scored(each.network, x) for each in self.members]):
            found = Agreement(self._output, spread)
            for each, part, name in zip(self.members, parts, self.known_as, strict=True):
                found.add(each.steps.soft(part), name)
            yield (start, found.answer(), found.spread()) if spread else (start, found.answer())

    def giving(self, output: str) -> 'Ensemble':
        """The same with another last step."""
        return Ensemble([each.giving(output) for each in self.members], self.known_as)

    def spread(self) -> Answer:
        """What answers the same inputs by how far the networks are apart, see `Agreement.spread`."""
        return _Spread(list(self.members), self.known_as)


class _Spread(Ensemble):
    def __init__(self, members: Sequence[Answer], names: Sequence[str]) -> None:
        super().__init__(members, names)
        # What restores a map on its file's grid must not take it for classes.
        self.steps = Steps({**self.data, 'answer': {**self.data['answer'], 'output': 'values'}})

    def forward(self, x: Tensor, lengths: Any = None) -> Tensor:
        return self.agreement(x, lengths, spread=True).spread()


def _aligned(streams: Sequence[Iterator[tuple[int, Tensor]]]) -> Iterator[tuple[int, list[Tensor]]]:
    """Slabs of the same places, where networks with other tiles are done with other slabs."""
    held: list[Any] = [next(stream) for stream in streams]
    while all(held):
        length = min(part.shape[2] for _, part in held)
        yield held[0][0], [part[:, :, :length] for _, part in held]
        held = [
            (start + length, part[:, :, length:]) if part.shape[2] > length else next(stream, None)
            for (start, part), stream in zip(held, streams, strict=True)
        ]


def _refuse_unlike(one: str, ours: Mapping[str, Any], other: str, theirs: Mapping[str, Any]) -> None:
    """Refuse networks of which a mean would be of different things."""
    for what, a, b in (*_forms(ours, theirs), *((name, ours.get(name), theirs.get(name)) for name in _NAMES)):
        if a is not None and b is not None and a != b:
            raise ValueError(f'{one} and {other} cannot be averaged: their {what} differ, {a!s:.200} and {b!s:.200}')
    for name in ('normalisation', 'target_normalisation'):
        if _far(ours.get(name), theirs.get(name)):
            raise ValueError(
                f'{one} and {other} cannot be averaged: they were trained in other units, as their {name} says: '
                f'{ours[name]!s:.200} and {theirs[name]!s:.200}'
            )


def _forms(*data: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    answers = [each.get('answer') or {} for each in data]
    outputs = [answer.get('output') for answer in answers]
    kinds = ['probabilities' if output in _TOLD_CLASSES else output for output in outputs]
    yield 'outputs', kinds[0], kinds[1]
    dense = ['maps' if answer.get('dense') else 'one answer a sample' for answer in answers]
    yield 'answers', dense[0], dense[1]
    inputs = [each.get('input') for each in data]
    channels = [None if shape is None else f'{shape[0]} channels of {len(shape) - 1} axes' for shape in inputs]
    yield 'inputs', channels[0], channels[1]


def _far(ours: Any, theirs: Any) -> bool:
    """Whether two scales can hardly be those of the same quantity."""
    if not all(isinstance(each, Mapping) and each.get('mean') and each.get('std') for each in (ours, theirs)):
        return False
    if len(ours['mean']) != len(theirs['mean']):
        return True
    rows = zip(ours['mean'], ours['std'], theirs['mean'], theirs['std'], strict=True)
    return any(max(s, t) > _APART * min(s, t) or abs(m - n) > _APART * max(s, t) for m, s, n, t in rows)
