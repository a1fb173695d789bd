"""Inference: from inputs in the units of the data to probabilities, class numbers or quantities.

It is described by what a checkpoint keeps about the data, a dictionary of plain values. Tasks, `mdnc predict`, loaded
networks and exported files all use these steps.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from mdnc.modules._standardization import Scale, figures_by_slab, sample_figures
from mdnc.modules._tiling import Tiles, run_tiled, single, tiled_slabs
from mdnc.modules.ragged import pad_batch

OUTPUTS = ('values', 'probabilities', 'classes', 'shares', 'scores')
_WAY_OUT = "give it as data={'answer': {'output': 'values' | 'probabilities' | 'classes' | 'shares'}, …}"
_BYTE = 256  # class numbers that fit into a byte


class Steps:
    """The steps before and after a network, read from what is known about its data.

    Args:
        data: ``answer`` describes the output, ``{'output': …, 'residual': …, 'dense': …}``: whether the output is given
            as ``'values'`` in the targets' units, ``'probabilities'``, the most probable ``'classes'``, ``'shares'``
            (an independent probability of each class) or, for further processing, ``'scores'`` (logits, standard
            units); whether the network predicts what to add to its input; whether it predicts at each position.
            ``normalisation`` and ``target_normalisation`` are the scales (see `mdnc.modules._standardization.Scale`),
            ``input`` is the shape of a sample in training, and where ``patch`` says on which windows a dense network
            was trained, it answers in tiles of this size that have ``overlap`` in common, weighted as ``blend`` says,
            ``tiles`` of them as one batch (``'auto'``: one, until `mdnc predict` finds out how many memory holds).
            ``mirror`` names spatial axes: scores are averaged over a sample or tile and
            all its mirror images along them.

    Raises:
        ValueError: ``answer`` is not one of these.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        answer = data.get('answer') or {'output': 'scores'}
        if not isinstance(answer, Mapping) or answer.get('output') not in OUTPUTS:
            raise ValueError(f'answer={answer!r:.80} must say its output, one of {OUTPUTS}')
        self.output: str = answer['output']
        self.residual = bool(answer.get('residual', False))
        self.before = Scale(data.get('normalisation'), 'the input')
        self.after = Scale(data.get('target_normalisation'), 'the output')
        self.dense = bool(answer.get('dense', False))
        self.patch = data.get('patch') if self.dense else None
        at_once = data.get('tiles') or 1
        # Who knows how much memory there is says how many these are.
        self.sized = at_once == 'auto'
        self.sized_for: tuple[int, ...] = ()  # shape of samples
        self.tiles = Tiles(data.get('overlap'), data.get('blend') or 'tent', 1 if self.sized else at_once)
        self.mirror = tuple(data.get('mirror') or ())
        self.input = tuple(data.get('input') or ())

    def ready(self, device: torch.device | str) -> None:
        """Move the statistics to a device, before a network is traced there."""
        for scale in (self.before, self.after):
            scale.ready(device)

    def _figures(self, x: Tensor, lengths: Any = None) -> Tensor | None:
        """Mean and standard deviation of each sample where they are normalised so, without what was padded."""
        if not self.before.by_sample:
            return None
        if lengths is None:
            return sample_figures(x)
        return torch.cat([sample_figures(part[None]) for part in _cropped(x, lengths)])

    def scores(
        self, network: Callable[..., Tensor], x: Tensor, lengths: Any = None, figures: Tensor | None = None
    ) -> Tensor:
        """The output of the network for inputs in the units of the data: logits, or values in standard units.

        Args:
            network: The network.
            x: Inputs ``(B, C, L1, ...)``.
            lengths: Size of each sample of a padded batch. A network without this argument is given one sample at a
                time.
            figures: Mean and standard deviation ``(B, C, 2)`` of the samples that ``x`` is of, where samples are
                normalised by themselves; None: those of ``x``.
        """
        given = self.levels(network, x, lengths, figures)
        if isinstance(given, tuple):
            raise ValueError(
                f'the network returns a tuple of {len(given)} (of heads, or for deep_supervision in training), '
                'but a prediction is made from one tensor'
            )
        return given

    def levels(
        self, network: Callable[..., Any], x: Tensor, lengths: Any = None, figures: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """`scores`, or those of each level of a network that returns a tuple of them in training."""
        self._admit(x)
        figures = self._figures(x, lengths) if figures is None else figures
        if lengths is not None and not _takes_lengths(network):
            return _one_by_one(functools.partial(self.scores, network), x, lengths, figures)
        more = {} if lengths is None else {'lengths': lengths}
        given = network(_suited(network, self.before.standard(x, figures)), **more)
        if isinstance(given, tuple):
            if self.residual:
                raise ValueError(
                    'residual: the network returns a tuple, but only a single output can be added to its input'
                )
            return tuple(single(y) for y in given)
        y = single(given)
        return y + self._added(x, y) if self.residual else y

    def _admit(self, x: Tensor) -> None:
        # Scales and some networks would also accept another number of channels, with a wrong result.
        if self.input and (x.ndim != len(self.input) + 1 or x.shape[1] != self.input[0]):
            lengths = ', '.join(f'L{axis}' for axis in range(1, len(self.input)))
            raise ValueError(
                f'the input has shape {tuple(x.shape)}, but training samples have (B, '
                f'{self.input[0]}, {lengths}): {self.input[0]} channel{"s" * (self.input[0] > 1)}'
            )

    def whole(self, network: Callable[..., Tensor], x: Tensor, lengths: Any = None) -> Tensor:
        """`scores`, in overlapping tiles if the network was trained on patches of such samples."""
        if lengths is not None and (self.patch is not None or self.mirror):
            return _one_by_one(lambda part, *_: self.whole(network, part), x, lengths, None)
        if self.patch is None:
            return self.mirrored(network, x, lengths)
        tiles = self.tiles
        run = functools.partial(self.mirrored, network, figures=self._figures(x))
        return run_tiled(run, x, self.patch, tiles.overlap, tiles.blend, tiles.at_once)

    def mirrored(
        self, network: Callable[..., Tensor], x: Tensor, lengths: Any = None, figures: Tensor | None = None
    ) -> Tensor:
        """`scores`, averaged over all mirror images along the axes of ``mirror``.

        Raises:
            ValueError: A sample does not have one of the axes.
        """
        if not self.mirror:
            return self.scores(network, x, lengths, figures)
        if max(self.mirror) > x.ndim - 3:
            raise ValueError(
                f'mirror={list(self.mirror)} names an axis that samples with {x.ndim - 2} axes do not have'
            )
        images = [axes for count in range(len(self.mirror) + 1) for axes in combinations(self.mirror, count)]
        total: Tensor | None = None
        for axes in images:
            turned = [axis + 2 for axis in axes]
            scores = self.scores(network, x.flip(turned), figures=figures)
            scores = scores.flip(turned) if self.dense else scores
            total = scores if total is None else total + scores
        assert total is not None
        return total / len(images)

    def scored(self, network: Callable[..., Tensor], x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """`whole` in slabs along the first spatial axis as they are done; without tiles the whole is one."""
        if self.patch is None:
            yield 0, self.mirrored(network, x)
            return
        run = functools.partial(self.mirrored, network, figures=figures_by_slab(x) if self.before.by_sample else None)
        yield from tiled_slabs(run, x, self.patch, self.tiles)

    def slabs(self, network: Callable[..., Tensor], x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The answer in slabs along the first spatial axis as they are done."""
        for start, scores in self.scored(network, x):
            yield start, self.last(scores)

    def last(self, scores: Tensor) -> Tensor:
        """From scores to the final output."""
        return numbers_of_classes(scores) if self.output == 'classes' else self.soft(scores)

    def soft(self, scores: Tensor) -> Tensor:
        """From scores to what has a mean: of classes their probabilities."""
        if self.output in ('probabilities', 'classes'):
            return scores.softmax(1)
        if self.output == 'shares':
            return scores.sigmoid()
        return self.after.own(scores) if self.output == 'values' else scores

    def _added(self, x: Tensor, y: Tensor) -> Tensor:
        kept = x[:, : y.shape[1]]  # an input may have more channels than are answered
        if kept.shape != y.shape:
            raise ValueError(
                f'residual: the network returns {tuple(y.shape[1:])} for a sample, but must return the size '
                f'of its input, {tuple(x.shape[1:])}, and at most as many channels, to be added to it'
            )
        return self.after.standard(kept)


def numbers_of_classes(scores: Tensor) -> Tensor:
    """The number of the class with the highest score, or probability."""
    classes = scores.argmax(1)
    return classes.byte() if scores.shape[1] <= _BYTE else classes  # an eighth of the file size


def _suited(network: object, x: Tensor) -> Tensor:
    # A network may have been moved to half precision as a whole.
    weight = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return x if weight is None or not weight.is_floating_point() else x.to(weight.dtype)


def _takes_lengths(network: Any) -> bool:
    known = getattr(network, '_orig_mod', network)  # of torch.compile
    return 'lengths' in inspect.signature(getattr(known, 'forward', known)).parameters


def sizes_of(lengths: Any) -> list[tuple[int, ...]]:
    """Spatial size of each sample, of the ``lengths`` of a padded batch."""
    rows = lengths.tolist() if hasattr(lengths, 'tolist') else lengths
    return [tuple(row) if isinstance(row, list | tuple) else (row,) for row in rows]


def _cropped(x: Tensor, lengths: Any) -> list[Tensor]:
    places: list[Any] = [(..., *map(slice, size)) for size in sizes_of(lengths)]
    return [row[place] for row, place in zip(x, places, strict=True)]


def _one_by_one(run: Callable[..., Tensor], x: Tensor, lengths: Any, figures: Tensor | None) -> Tensor:
    """Run each sample of a padded batch at its own size; maps are padded again."""
    own = [None] * len(x) if figures is None else torch.split(figures, 1)
    rows = [run(part[None], None, each)[0] for part, each in zip(_cropped(x, lengths), own, strict=True)]
    if len({row.shape for row in rows}) == 1:
        return torch.stack(rows)
    whole = rows[0].new_zeros(len(rows), *(max(axis) for axis in zip(*(row.shape for row in rows), strict=True)))
    for place, row in enumerate(rows):
        whole[place][tuple(map(slice, row.shape))] = row
    return whole


class Answer(nn.Module):
    """A trained network that predicts as ``mdnc predict`` does: in the units of the data, if need be in tiles.

    Args:
        network: A network.
        data: What is known about the training data, as a checkpoint keeps it; by default what the network was loaded
            with.

    Raises:
        ValueError: The meaning of the network's output is not known.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.EncoderNet1d(8, [1, 1], out_length=2)
        >>> data = {'normalisation': {'mean': [20.0], 'std': [3.0]}, 'answer': {'output': 'probabilities'}}
        >>> answer = mdnc.checkpoints.Answer(net, data)
        >>> answer.predict(20 + 3 * torch.randn(5, 1, 32)).sum(1)
        tensor([1., 1., 1., 1., 1.])
    """

    def __init__(self, network: nn.Module, data: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if data is None:
            data = getattr(getattr(network, 'origin', None), 'data', None)
        if not data or not data.get('answer'):
            known = 'nothing' if not data else f'only {", ".join(data)}'
            raise ValueError(
                f'{type(network).__name__}: {known} is known about its training data, so its output '
                f'cannot be interpreted; {_WAY_OUT}'
            )
        self.network = network
        self.data = dict(data)
        self.steps = Steps(self.data)

    def forward(self, x: Tensor, lengths: Any = None) -> Tensor:
        """Predict for inputs ``(B, C, L1, ...)`` in the units of the data."""
        return self.steps.last(self.steps.whole(self.network, x, lengths))

    def giving(self, output: str) -> 'Answer':
        """The same with another last step, such as ``'probabilities'`` instead of ``'classes'``."""
        return Answer(self.network, {**self.data, 'answer': {**self.data['answer'], 'output': output}})

    def predict(self, x: Any) -> Any:
        """Predict without gradients and in eval mode, whatever mode the network is in.

        Args:
            x: Samples ``(B, C, L1, ...)`` in the units of the data, a tensor or an array; or a list with one
                ``(C, L1, ...)`` for each sample, which may differ in size.

        Returns:
            A tensor on the device of ``x``, or an array if ``x`` holds no tensors. For a list, and a network that
            predicts at each position, a list of these, each of the size of its sample.

        Raises:
            ValueError: The samples have another number of channels than in training, one contains NaN or Inf, or the
                network refuses them.
            TypeError: They are complex.
        """
        if isinstance(x, list | tuple):
            samples = [torch.as_tensor(each) for each in x]
            self.refuse_broken(samples)
            return self._predict_each(samples, isinstance(x[0] if x else 0, Tensor))
        given = torch.as_tensor(x)
        self.refuse_broken(given)
        y = self.predict_padded(given)
        return y if isinstance(x, Tensor) else y.numpy()

    def refuse_broken(self, samples: Tensor | Sequence[Tensor]) -> None:
        """Refuse samples for which there is no answer: a network turns NaN into some class without a word.

        Raises:
            ValueError: One contains NaN or Inf; a value beyond the network's precision counts as Inf.
            TypeError: They are complex.
        """
        weight = next(self.network.parameters(), None)
        double = weight is not None and weight.dtype == torch.float64
        most = torch.finfo(torch.float64 if double else torch.float32).max
        if isinstance(samples, Tensor) and _legal(samples, most):
            return
        for number, sample in enumerate(samples):
            if not _legal(sample, most):
                raise ValueError(
                    f'sample {number} of the input contains NaN or Inf, or a value beyond {most:.2g}, so that there is '
                    'no answer to it'
                )

    def predict_padded(self, x: Tensor, lengths: Any = None) -> Tensor:
        """The same for a batch that was padded to one size; results within the padding have no meaning."""
        weight = next(self.network.parameters(), None)
        with torch.no_grad(), evaluating(self):
            y: Tensor = self(x if weight is None else x.to(weight.device), lengths).to(x.device)
        return y

    @torch.no_grad()
    def slabs(self, x: Tensor, spread: bool = False) -> Iterator[tuple[Any, ...]]:
        """Answer in slabs along the first spatial axis as they are done, so that no more than these are held.

        Args:
            x: Samples ``(B, C, L1, ...)`` in the data's own units.
            spread: Whether each slab comes with its spread, of an `mdnc.checkpoints.Ensemble`.

        Yields:
            First position of a slab, and its answer.
        """
        weight = next(self.network.parameters(), x)
        with evaluating(self):
            yield from self._slabs(x.to(weight.device), spread)

    def _slabs(self, x: Tensor, spread: bool) -> Iterator[tuple[Any, ...]]:
        if spread:
            raise ValueError('Answer: a spread is that of several networks, and there is one')
        yield from self.steps.slabs(self.network, x)

    def _predict_each(self, samples: list[Tensor], tensors: bool) -> Any:
        x, lengths = pad_batch(samples)
        differ = any(size != tuple(x.shape[2:]) for size in sizes_of(lengths))
        y = self.predict_padded(x, lengths if differ else None)
        if not self.steps.dense:
            return y if tensors else y.numpy()
        rows = _cropped(y, lengths)
        return rows if tensors else [row.numpy() for row in rows]


def _legal(x: Tensor, most: float) -> bool:
    """Whether all values are finite; of NaN and Inf the extremes are NaN and Inf too, and take no memory."""
    if x.is_complex():
        raise TypeError(f'the input is of type {str(x.dtype).removeprefix("torch.")}, not real numbers')
    if not x.is_floating_point() or not x.numel():
        return True
    low, high = (float(each) for each in torch.aminmax(x.detach()))
    return -most <= low and high <= most


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, and each of its parts back into its own."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
