"""From a network to a file that was compared with it."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdnc._files import as_path, whole_file
from mdnc.export.comparison import Compared, DiffersError, compare, predicted
from mdnc.export.contract import facts, known, last_step, leaves_scaling, ports, refuse_others
from mdnc.export.formats import AotInductor, Format, Onnx, TorchExport
from mdnc.export.graph import Scaled, captured
from mdnc.modules import _checks
from mdnc.modules._inference import Answer


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Args:
        path: The file.
        facts: What the file says of itself: network and arguments, input, the sizes that it takes, scales.
        compared: How far it is off the network, at sizes other than the one it was traced with; of an
            `mdnc.checkpoints.Answer` the last row says how far the graph is off what ``mdnc predict`` answers.

    Example:
        >>> import pathlib, tempfile
        >>> import mdnc
        >>> net = mdnc.modules.resnet.EncoderNet1d(4, [1, 1]).eval()
        >>> exported = mdnc.export.to_torch_export(net, pathlib.Path(tempfile.mkdtemp()) / 'net.pt2')
        >>> exported.path.name, exported.facts['network']['name'], len(exported.compared)
        ('net.pt2', 'EncoderNet1d', 2)
    """

    path: Path
    facts: dict[str, Any]
    compared: tuple[Compared, ...]

    @property
    def difference(self) -> float:
        """The worst difference, relative to the largest output value."""
        return max(each.difference for each in self.compared)


@dataclass(frozen=True)
class _Request:
    owner: str
    net: nn.Module
    path: str | os.PathLike[str]
    normalisation: dict[str, Any] | None
    target_normalisation: dict[str, Any] | None
    device: torch.device | str = 'cpu'
    mirror: bool = False
    last_step: bool = False

    @property
    def network(self) -> nn.Module:
        return self.net.network if isinstance(self.net, Answer) else self.net

    @property
    def data(self) -> dict[str, Any]:
        return self.net.data if isinstance(self.net, Answer) else known(self.net) or {}

    @property
    def scales(self) -> dict[str, Any]:
        """What becomes part of the graph."""
        given = {'normalisation': self.normalisation, 'target_normalisation': self.target_normalisation}
        if not isinstance(self.net, Answer):
            for name in ('mirror', 'last_step'):
                if getattr(self, name):
                    raise ValueError(
                        f'{self.owner}: {name}=True is of an Answer, which knows how the network predicts.'
                    )
            return {**given, 'answer': None}
        twice = [name for name, scale in given.items() if scale is not None]
        if twice:
            raise ValueError(f'{self.owner}: {twice[0]} is known to the Answer that was given; leave it out.')
        mirror = list(self.data.get('mirror') or [])
        if self.mirror and not mirror:
            raise ValueError(
                f'{self.owner}: mirror=True, but mdnc predict averages over no mirror images of these data.'
            )
        scales = {name: self.data.get(name) for name in given}
        if leaves_scaling(self.data):
            scales['normalisation'] = None
        return {
            **scales,
            'answer': last_step(self.data, self.last_step),
            'mirror': mirror if self.mirror else [],
        }

    def predicts(self, scales: dict[str, Any]) -> Answer | None:
        """What answers as the graph is to, by the way of ``mdnc predict``."""
        if not isinstance(self.net, Answer):
            return None
        return Answer(self.net.network, {**self.data, **scales})


def to_onnx(
    net: nn.Module,
    path: str | os.PathLike[str],
    *,
    normalisation: dict[str, Any] | None = None,
    target_normalisation: dict[str, Any] | None = None,
    opset: int | None = None,
    mirror: bool = False,
    last_step: bool = False,
) -> Exported:
    """Write a network as one ONNX file with a free batch and free lengths, compared by onnxruntime beforehand.

    Inputs and outputs are named ``x`` and ``y``. The file's metadata says under ``'mdnc'``, as JSON, which network it
    is and which sizes it takes. The network itself is not changed; a copy on the CPU is exported, in eval mode.

    Args:
        net: A network in float32; or an `mdnc.checkpoints.Answer`, whose graph answers as ``mdnc predict`` does: in the
            data's own units, with the input added where the network was trained so, as probabilities or classes. It
            does not cut samples into tiles: what ``tiles`` of the facts says then is left to the caller.
        path: The file, ``….onnx``, written whole or not at all.
        normalisation: ``{'mean': […], 'std': […]}`` of the input's channels to make part of the graph, which then takes
            values in the data's own units, for example ``net.origin.data['normalisation']``.
        target_normalisation: The same of the output's channels, put on behind the network.
        opset: Version of ONNX's operator set; ``None`` for the exporter's own.
        mirror: Of an `Answer`, whether the graph averages over mirror images as its prediction does.
        last_step: Of an `Answer` that predicts in tiles, whether the graph makes probabilities or classes of its
            scores: it is then for single tiles, or samples as small. Without tiles the graph does so anyway.

    Returns:
        The file, what it says of itself and how far it is off the network.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime isn't there; the text says how to install them.
        TypeError: ``net`` is none of mdnc's networks.
        ValueError: An argument is wrong; the file would be larger than ONNX allows; or the graph's answers differ from
            the network's (`DiffersError`): then nothing is written.

    Example:
        >>> import pathlib, tempfile
        >>> import mdnc
        >>> net = mdnc.modules.resnet.EncoderNet1d(4, [1, 1]).eval()
        >>> path = pathlib.Path(tempfile.mkdtemp()) / 'net.onnx'
        >>> exported = mdnc.export.to_onnx(net, path)
        >>> exported.path.name, all(each.difference <= each.allowed for each in exported.compared)
        ('net.onnx', True)
    """
    if opset is not None:
        opset = _checks.integer('to_onnx', 'opset', opset)
    request = _Request('to_onnx', net, path, normalisation, target_normalisation, 'cpu', mirror, last_step)
    return _export(request, Onnx(opset))


def to_torch_export(
    net: nn.Module,
    path: str | os.PathLike[str],
    *,
    normalisation: dict[str, Any] | None = None,
    target_normalisation: dict[str, Any] | None = None,
    mirror: bool = False,
    last_step: bool = False,
) -> Exported:
    """Write a network for ``torch.export.load``, with a free batch and free lengths; it then runs without mdnc.

    Args:
        net: A network in float32 or float64, or an `mdnc.checkpoints.Answer`; as in `to_onnx`.
        path: As in `to_onnx`, but ``….pt2``.
        normalisation: As in `to_onnx`.
        target_normalisation: As in `to_onnx`.
        mirror: As in `to_onnx`.
        last_step: As in `to_onnx`.

    Returns:
        As `to_onnx`.

    Raises:
        TypeError: As `to_onnx`.
        ValueError: As `to_onnx`.

    Example:
        >>> import pathlib, tempfile, torch
        >>> import mdnc
        >>> net = mdnc.modules.resnet.EncoderNet1d(4, [1, 1]).eval()
        >>> path = pathlib.Path(tempfile.mkdtemp()) / 'net.pt2'
        >>> exported = mdnc.export.to_torch_export(net, path)
        >>> torch.export.load(path).module()(torch.zeros(3, 1, 40)).shape
        torch.Size([3, 2])
    """
    return _export(
        _Request('to_torch_export', net, path, normalisation, target_normalisation, 'cpu', mirror, last_step),
        TorchExport(),
    )


def to_aotinductor(
    net: nn.Module,
    path: str | os.PathLike[str],
    *,
    normalisation: dict[str, Any] | None = None,
    target_normalisation: dict[str, Any] | None = None,
    mirror: bool = False,
    last_step: bool = False,
) -> Exported:
    """Compile a network ahead of time for the device it is on, for ``torch._inductor.aoti_load_package``.

    The file runs without mdnc, and from C++. It fits the processor it was compiled on. Compiling takes from half a
    minute to several.

    Args:
        net: A network in float32 or float64, or an `mdnc.checkpoints.Answer`; as in `to_onnx`.
        path: As in `to_onnx`, but ``….pt2``.
        normalisation: As in `to_onnx`.
        target_normalisation: As in `to_onnx`.
        mirror: As in `to_onnx`.
        last_step: As in `to_onnx`.

    Returns:
        As `to_onnx`.

    Raises:
        RuntimeError: There is no C++ compiler.
        TypeError: As `to_onnx`.
        ValueError: As `to_onnx`.
    """
    refuse_others('to_aotinductor', net, AotInductor.dtypes)
    device = next(net.parameters()).device
    request = _Request('to_aotinductor', net, path, normalisation, target_normalisation, device, mirror, last_step)
    return _export(request, AotInductor())


def _export(request: _Request, kind: Format) -> Exported:
    owner, net = request.owner, request.network
    path = as_path(owner, 'path', request.path)
    refuse_others(owner, request.net, kind.dtypes)
    if not path.parent.is_dir() or path.is_dir():
        raise FileNotFoundError(f'{owner}: path={path} must be a file in a folder that is there.')
    if path.suffix != kind.suffix:
        raise ValueError(f'{owner}: path={path} must end in {kind.suffix}: other programs know it by that.')
    kind.prepare()
    scales = request.scales
    units = scales['normalisation'], scales['target_normalisation']
    graph = Scaled(net, *units, request.device, scales['answer'], scales.get('mirror', ()))
    door, said = ports(net, request.data), facts(net, scales, request.data)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / f'draft{kind.suffix}'
        try:
            kind.write(captured(graph, door), door.axes, said, draft)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f'{owner}: the draft of {path} in {folder} could not be written ({reason})') from error
        compared = compare(kind.open(draft), graph, door.trials)
        answer = request.predicts(scales)
        if answer is not None:  # at the last shape, that of a tile where there are such
            compared += (predicted(graph, answer, door.trials[-1]),)
        for row in compared:
            if not row.agrees:
                raise DiffersError(
                    f'{owner}: the graph is off {type(net).__name__} by {row.difference:.1e} of the largest value for '
                    f'an input of shape {row.shape} ({row.allowed:.1e} is allowed); nothing was written.'
                )
        with draft.open('rb') as source, whole_file(path) as file:
            shutil.copyfileobj(source, file)
    return Exported(path, said, compared)
