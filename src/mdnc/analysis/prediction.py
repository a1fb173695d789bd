"""Peak memory of predicting a sample, whole or in tiles, in bytes, estimated without running it."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mdnc.analysis.fake_run import StandIn, Trial, stand_in, trial
from mdnc.analysis.memory import left_out
from mdnc.analysis.parts import PartWatch
from mdnc.analysis.peak import AllocationTracker
from mdnc.analysis.table import bytes_text, table
from mdnc.modules import _checks
from mdnc.modules._inference import OUTPUTS, Steps
from mdnc.modules._sizes import Size
from mdnc.modules._tiling import BLENDS, gathered, tile_starts, tiled_slabs

RESULTS = ('device', 'host')
_OWNER = 'prediction_forecast'
_ROWS = 4  # different kinds of tiles: the first, those after it, and the last
_UNIT = {'mean': [0.0], 'std': [1.0]}


@dataclass(frozen=True)
class PredictionForecast:
    """Peak memory of predicting a sample in bytes, and its components.

    Args:
        device: Peak on the device of the network: its weights, the sample, memory of a run of the network, and blended
            tiles.
        host: Bytes in main memory if the device is not the CPU: the sample and, if the result is there, the part of the
            prediction that is returned at once. On a CPU nothing is copied, and everything is in ``device``.
        parameters: Bytes of parameters and buffers.
        sample: Bytes of the input.
        network: Peak of a run of the network in addition to these.
        answer: Bytes of the prediction that are returned at once: all, or the largest slab.
        unmeasured: Operators that ran whose workspaces are not known, and not in ``network`` and ``device``.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.UNet2d(8, [1, 1, 1])
        >>> print(mdnc.analysis.prediction_forecast(net, (512, 512)))  # doctest: +ELLIPSIS
        prediction       bytes
        ...
    """

    device: int
    host: int
    parameters: int
    sample: int
    network: int
    answer: int
    unmeasured: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The estimate as a table with a row for each value."""
        figures = self.to_dict()
        rows = [(name, bytes_text(figures[name])) for name in (*_CONTENT, *RESULTS)]
        shown = table(('prediction', 'bytes'), rows, foot=len(RESULTS))
        return f'{shown}\n{left_out(self.unmeasured)}'.rstrip()

    def to_dict(self) -> dict[str, Any]:
        """The estimate as plain data for JSON."""
        return asdict(self)


_CONTENT = ('parameters', 'sample', 'network', 'answer')


def prediction_forecast(
    net: nn.Module,
    size: Any,
    tile: Any = None,
    batch_size: int = 1,
    dtype: torch.dtype | None = None,
    *,
    overlap: float | None = None,
    blend: str = 'tent',
    answer: str = 'scores',
    scaled: bool = False,
    samples: int = 1,
    result: str = 'device',
) -> PredictionForecast:
    """Estimate the peak memory of predicting a sample, by predicting it on fake tensors.

    Nothing is computed, and the network runs once for each size of batch, however many tiles there are. It does not
    change, and may be on any device, also on ``'meta'``, which counts as the CPU; ``torch.autocast`` is respected.

    Args:
        net: Any module with one input; for tiles, one that returns a map of the size of its input.
        size: Shape of the sample, the ``input_size`` of `memory_forecast`.
        tile: Spatial size of the tiles, one int for all axes or one for each; an axis of the sample that is shorter is
            padded to it. ``None``: the sample is predicted as a whole.
        batch_size: Number of tiles in one batch; without tiles, of samples. At least 1.
        dtype: Type of parameters and input, ``torch.float16``, ``bfloat16``, ``float32`` or ``float64``; ``None`` for
            the parameters' own.
        overlap: Share of a tile, in [0, 1), that it has at least in common with the next; None for a half with
            ``'gaussian'``, else a quarter.
        blend: ``'tent'`` or ``'gaussian'``, what tiles count off their centres.
        answer: What is made of the blended output: ``'scores'`` (the output as it is), ``'values'``,
            ``'probabilities'``, ``'classes'`` or ``'shares'``.
        scaled: Whether inputs are brought to standard units on their way in, and values back on their way out.
        samples: Samples of that size that are predicted in tiles together, at least 1.
        result: ``'device'``: the answer is gathered there as a whole. ``'host'``: with tiles it leaves in slabs along
            the first spatial axis as they are done, as ``mdnc predict`` writes them; without, as a whole.

    Returns:
        The forecast, in bytes.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that is not legal, the network refuses inputs of this size, or what it
            gives for a tile is not as large as the tile.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.UNet3d(16, [1, 1, 1], out_planes=4)
        >>> whole = prediction_forecast(net, (512, 512, 512))
        >>> tiled = prediction_forecast(net, (512, 512, 512), tile=128, batch_size=2)
        >>> slabs = prediction_forecast(net, (512, 512, 512), tile=128, batch_size=2, result='host')
        >>> slabs.device < tiled.device < whole.device / 4
        True
    """
    steps = _steps(overlap, blend, answer, scaled, batch_size)
    _checks.word(_OWNER, 'result', result, RESULTS)
    together = _checks.integer(_OWNER, 'samples', samples)
    run = trial(_OWNER, net, size, batch_size if tile is None else together, dtype)
    if tile is None:
        return _forecast(run, run.shape, steps, result)
    lengths = _checks.per_axis(_OWNER, 'tile', tile, len(run.shape) - 2)
    steps.patch = lengths
    return _forecast(trial(_OWNER, net, (run.shape[1], *lengths), batch_size, dtype), run.shape, steps, result)


def _steps(overlap: object, blend: object, answer: object, scaled: object, batch_size: object) -> Steps:
    share = None if overlap is None else _checks.number(_OWNER, 'overlap', overlap, least=0)
    if share is not None and share >= 1:
        raise ValueError(f'{_OWNER}: overlap={overlap!r} must be a number in [0, 1).')
    data: dict[str, Any] = {
        'answer': {'output': _checks.word(_OWNER, 'answer', answer, OUTPUTS), 'dense': True},
        'overlap': share,
        'blend': _checks.word(_OWNER, 'blend', blend, BLENDS),
        'tiles': _checks.integer(_OWNER, 'batch_size', batch_size),
    }
    if _checks.flag(_OWNER, 'scaled', scaled):
        data |= {'normalisation': _UNIT, 'target_normalisation': _UNIT}
    return Steps(data)


def _forecast(run: Trial, shape: tuple[int, ...], steps: Steps, result: str) -> PredictionForecast:
    with stand_in(run) as stand, torch.no_grad():
        run.net.eval()
        x = torch.empty(shape, dtype=stand.x.dtype, device=stand.x.device)
        ledger = AllocationTracker(PartWatch(nn.Identity()), (*stand.parameters.values(), *stand.buffers.values(), x))
        there, sample = ledger.held, _bytes(x)
        network = _Replayed(stand, ledger)
        with ledger:
            answer = _answered(network, x, steps, slabs=result == 'host')
    return PredictionForecast(
        device=ledger.peak,
        host=sample + answer * (result == 'host'),
        parameters=there - sample,
        sample=sample,
        network=max(more for more, _ in network.known.values()),
        answer=answer,
        unmeasured=tuple(sorted(ledger.unmeasured)),
    )


def _answered(network: nn.Module, x: Tensor, steps: Steps, *, slabs: bool) -> int:
    """Go the steps of a prediction; gives the bytes of the answer that are handed over at once."""
    if steps.patch is None:
        return _bytes(steps.last(steps.mirrored(network, x)))
    few = _first_rows(x, steps.patch, steps.tiles.shared)
    if slabs:
        most = 0
        for _, part in steps.slabs(network, few):
            most = max(most, _bytes(part))
        return most
    made = tiled_slabs(partial(steps.mirrored, network), few, steps.patch, steps.tiles)
    return _bytes(steps.last(gathered(made, x.shape[2])))


def _first_rows(x: Tensor, tile: Size, overlap: float) -> Tensor:
    """As much of the input as the first rows of tiles cover: all others need the same."""
    starts = tile_starts(x.shape[2], tile[0], overlap)
    padded = any(have < want for have, want in zip(x.shape[2:], tile, strict=True))
    return x if padded or len(starts) <= _ROWS else x[:, :, : starts[_ROWS - 1] + tile[0]]


class _Replayed(nn.Module):
    """A network on fake tensors that runs once for each shape of input; later its memory and output are repeated.

    Args:
        stand: The network.
        ledger: Tracks its memory.
    """

    def __init__(self, stand: StandIn, ledger: AllocationTracker) -> None:
        super().__init__()
        self.first = next((each for each in stand.parameters.values()), None)  # says the type of inputs
        self.known: dict[Size, tuple[int, Any]] = {}
        self._stand, self._ledger = stand, ledger

    def forward(self, x: Tensor) -> Any:
        shape = tuple(x.shape)
        if shape not in self.known:
            return self._run(x)
        more, made = self.known[shape]
        self._ledger.note(more)
        return made()

    def _run(self, x: Tensor) -> Any:
        ledger, earlier = self._ledger, self._ledger.peak
        ledger.most.clear()
        y = replace(self._stand, x=x).run()
        if not isinstance(y, Tensor):
            return y  # is refused
        # What stays, such as weights that autocast keeps, is there when it runs again.
        storage = y.untyped_storage().nbytes()
        more = ledger.peak - ledger.held + storage
        make = partial(torch.empty, storage // y.element_size(), dtype=y.dtype, device=y.device)
        layout = y.shape, y.stride(), y.storage_offset()
        self.known[tuple(x.shape)] = more, lambda: make().as_strided(*layout)
        ledger.note(max(0, earlier - ledger.held))
        return y


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()
