"""Saving networks, and rebuilding them from name, arguments, weights and a tiny example of input and output."""

import contextvars
import inspect
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mdnc import _bundle
from mdnc._bundle import Bundle
from mdnc._extras import require
from mdnc._repr import short_repr
from mdnc.modules import _checks
from mdnc.modules._inference import Answer
from mdnc.modules._plan import Plan, Tensors
from mdnc.modules._sizes import Size
from mdnc.ops import plain

Net = TypeVar('Net', bound='_Pretrained')

GOLDEN_VALUES = 1000
# The example is tiny, so deep norms see planes of 2 values, which amplify rounding a million times: hence fp64. A
# decoder has a single output size; if that is large the planes are too, and fp32 is precise enough and much smaller.
GOLDEN_FINE = 2**14
# Arguments that count blocks, each with tensors of its own: a forged file might ask for a million.
COUNTS = ('layers', 'up_layers')
FEW = 100  # at most this many are planned, whatever a file says
# Relative to the largest output value; another rule causes 1e-2 and more, an epsilon of 1e-6 for 1e-5 about 1e-5.
GOLDEN_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}


@dataclass(frozen=True)
class Origin:
    """Where a network was loaded from.

    Args:
        source: The folder, file or hub name.
        data: What it was trained on, for example ``{'normalisation': …, 'classes': …}``; ``None`` if unknown.
        difference: Difference of the network's output from the example saved with it, relative to the largest output
            value; ``None`` if no example was saved (training checkpoints have none).
    """

    source: str
    data: dict[str, Any] | None
    difference: float | None


class _Planned(BaseException):
    """Raised to end the constructor of a network of which only the plan is needed."""

    def __init__(self, plan: Plan, config: dict[str, Any]) -> None:
        super().__init__()
        self.plan, self.config = plan, config


# The class of which only the plan is needed; modules that it builds itself are built.
_ONLY_PLANNED: contextvars.ContextVar[type | None] = contextvars.ContextVar('only planned', default=None)


def planned(cls: type[nn.Module], arguments: dict[str, Any]) -> tuple[Plan, dict[str, Any]]:
    """The plan and the configuration of a network, without building it."""
    token = _ONLY_PLANNED.set(cls)
    try:
        raise TypeError(f'{cls(**arguments)!r:.80} has no plan.')
    except _Planned as found:
        return found.plan, found.config
    finally:
        _ONLY_PLANNED.reset(token)


class _Pretrained(nn.Module):
    """A module that can be saved, and rebuilt from the saved files."""

    #: Where the network was loaded from; ``None`` if it was not loaded.
    origin: Origin | None = None

    def __init__(self, plan: Plan, config: dict[str, Any]) -> None:
        if type(self) is _ONLY_PLANNED.get():
            raise _Planned(plan, config)
        super().__init__()
        self._plan, self._config = plan, config

    @property
    def plan(self) -> Plan:
        """The plan of the network: its parts as plain values."""
        return self._plan

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values: ``type(net)(**net.config)`` builds the same network.

        Options at their defaults are left out, and always `memory`, `device` and `dtype`, which do not belong to the
        architecture.
        """
        return dict(self._config)

    def save_pretrained(self, folder: str | os.PathLike[str], data: dict[str, Any] | None = None) -> None:
        """Save the network to a folder, from which `from_pretrained` rebuilds it; a failed save changes nothing.

        The folder gets ``config.json``, the weights and a tiny example of input and output as safetensors. A network
        that is in the folder already is replaced in one step, and stays loadable until then.

        Args:
            folder: The folder; created if it does not exist.
            data: What the network was trained on, JSON-able, for example ``{'normalisation': {'mean': [0.5], 'std':
                [0.2]}, 'classes': ['cat', 'dog']}``; by default what it was loaded with.

        Raises:
            TypeError: JSON can't keep ``data`` unchanged.
            ValueError: The network could not be rebuilt: layers were replaced by hand, tensors are shared, or its
                output for the example is not finite.
            OSError: Writing failed, for example because the disk is full.

        Example:
            >>> import mdnc, tempfile
            >>> net = mdnc.modules.resnet.EncoderNet1d(8, [1, 1])
            >>> folder = tempfile.mkdtemp()
            >>> net.save_pretrained(folder, data={'classes': ['noise', 'signal']})
            >>> again = mdnc.modules.resnet.EncoderNet1d.from_pretrained(folder)
            >>> again.origin.data['classes'], again.origin.difference
            (['noise', 'signal'], 0.0)
        """
        if not isinstance(data, (dict, type(None))):
            raise TypeError(f'save_pretrained: data={data!r:.80} must be a dict that JSON can keep, or None.')
        if data is None and self.origin is not None:
            data = self.origin.data
        _bundle.write(folder, bundled(self, data))

    def push_to_hub(self, repo: str, data: dict[str, Any] | None = None, *, private: bool | None = None) -> str:
        """Save the network to the Hugging Face hub, where ``from_pretrained('hf://owner/name')`` loads it.

        Args:
            repo: ``'owner/name'`` of the repository; created if it does not exist.
            data: As in `save_pretrained`.
            private: Whether a new repository is private; ``None`` for the owner's default.

        Returns:
            Address of the commit.
        """
        if not isinstance(repo, str) or not repo:
            raise TypeError(f"push_to_hub: repo={repo!r:.80} must be a str 'owner/name'.")
        hub = require('huggingface_hub', 'export')
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, data)
            hub.create_repo(repo, private=private, exist_ok=True)
            # One commit: files of a former network are removed as the new ones are added.
            stale = [f'{part}-*.safetensors' for part in _bundle.PARTS]
            done = hub.upload_folder(repo_id=repo, folder_path=folder, delete_patterns=stale)
        return str(done.commit_url)

    def predict(self, x: Any) -> Any:
        """Predict as ``mdnc predict`` does: probabilities, classes or quantities in the units of the data.

        The network itself, ``net(x)``, works in standard units and logits, as needed for further training.

        Args:
            x: Samples ``(B, C, L1, ...)`` in the units of the data, a tensor or an array.

        Returns:
            A tensor on the device of ``x``, or an array if ``x`` is not a tensor.

        Raises:
            ValueError: The task of the network is not known (``origin.data['answer']``), or a sample has
                another number of channels than in training.
        """
        return Answer(self).predict(x)

    @classmethod
    def from_pretrained(cls: type[Net], source: str | os.PathLike[str]) -> Net:
        """Rebuild a network from what `save_pretrained` or ``mdnc fit`` wrote, on the CPU and in eval mode.

        The example saved with it is run, and ``origin.difference`` is the difference of the outputs.

        Args:
            source: A folder of `save_pretrained`, a checkpoint of ``mdnc fit`` or the folder of its run (the best
                checkpoint is taken), or ``'hf://owner/name'`` with an optional ``@revision``.

        Raises:
            FileNotFoundError: The source or a part of it does not exist.
            ValueError: It is damaged, of a newer format or another architecture, or its output for the example differs.
        """
        bundle = _bundle.read(source, 'from_pretrained')
        if bundle.name != cls.__name__:
            raise ValueError(
                f'{source} contains {bundle.name:.80}, not {cls.__name__}; load it with that class, or with '
                'mdnc.checkpoints.load.'
            )
        return revived(cls, bundle, source)


def revived(cls: type[Net], bundle: Bundle, source: str | os.PathLike[str]) -> Net:
    """Build the network of a bundle and check its output for the example, if there is one."""
    empty = [key for key, value in bundle.weights.items() if value.is_meta]
    if empty:
        raise ValueError(f'{source} has no values for {empty[0]}: it is on the meta device.')
    net = built(cls, bundle.arguments, bundle.weights, str(source))
    difference = _difference(net, bundle.golden, str(source)) if bundle.golden is not None else None
    net.origin = Origin(str(source), bundle.data, difference)
    return net


def built(cls: type[Net], arguments: dict[str, Any], weights: dict[str, Tensor], source: str) -> Net:
    """Build a network around given weights, in eval mode; no random numbers are drawn.

    Args:
        cls: Its class.
        arguments: The constructor's arguments.
        weights: Its state dict, whose tensors become its parameters.
        source: Where these are from, for error messages.

    Raises:
        ValueError: The arguments or the weights do not belong to such a network.
    """
    _refuse_other_arguments(cls, arguments, source)
    refuse_unheld(arguments, weights, source)
    try:
        misfit = misfits(planned(cls, arguments)[0].tensors, weights)
        if not misfit:
            with torch.device('meta'), _checks.buildable(cls.__name__):
                net = cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{source} describes a network that cannot be built: {error}') from error
    if misfit:
        shown = '; '.join(misfit[:3]) + (f'; and {len(misfit) - 3} more' if len(misfit) > 3 else '')
        made = f'{cls.__name__}(**{short_repr(arguments)})'
        raise ValueError(f'{source} does not contain the weights of {made}: {shown}.')
    net.load_state_dict(weights, assign=True)
    return net.eval()


def bundled(net: _Pretrained, data: dict[str, Any] | None) -> Bundle:
    """The files' content for a network, checked by rebuilding it on the CPU."""
    name = type(net).__name__
    arguments, data = _bundle.plain(net.config, 'config'), _bundle.plain(data, 'data')
    state = net.state_dict()
    if any(value.is_meta for value in state.values()):
        raise ValueError(f'{name} cannot be saved: it is on the meta device, where weights have no values.')
    if len({value.data_ptr() for value in state.values()}) < len(state):
        raise ValueError(
            f'{name} cannot be saved: some of its weights are shared, which a rebuilt network would not have.'
        )
    weights = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    again = built(type(net), arguments, weights, f'This {name}')
    x = _golden_input(again)
    y = _golden_output(again, x)
    if not y.isfinite().all():
        raise ValueError(f'{name} cannot be saved: its output for the example input is not finite; check its weights.')
    return Bundle(name, arguments, weights, {'input': x, 'output': y}, data)


def refuse_unheld(arguments: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse arguments of a network with more stages or blocks than there are weights, before it is planned.

    Raises:
        ValueError: An argument asks for more blocks than there are tensors.
    """
    for name, value in arguments.items():
        # One number applies to each stage.
        stages = 1 if _listed(value) else max(1, len(_listed(arguments.get('layers'))))
        if stages * _count(name, value) > max(len(weights), FEW):
            raise ValueError(
                f'{source} does not contain the weights of {name}={short_repr(value)}: it has {len(weights)} tensors.'
            )


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _count(name: str, value: Any) -> int:
    """The smallest number of stages or blocks that an argument implies."""
    if not isinstance(value, (list, tuple)):
        return value if name in COUNTS and isinstance(value, int) else 0
    counted = sum(each for each in value if isinstance(each, int)) if name in COUNTS else 0
    return max(counted, len(value) - 3)  # a list for three axes counts nothing


def misfits(wanted: Tensors, given: dict[str, Tensor]) -> list[str]:
    """Describe where a state dict differs from that of a network."""
    said = [f'{key} is missing' for key in wanted if key not in given]
    said += [f'{key} is unknown' for key in given if key not in wanted]
    for key in (key for key in wanted if key in given):
        value, shape = given[key], wanted[key]
        if fault := unusable(value):
            said.append(f'{key} {fault}')
        elif tuple(value.shape) != shape:
            said.append(f'{key} has shape {tuple(value.shape)} instead of {shape}')
        elif shape and not value.is_floating_point():  # a single number counts batches
            said.append(f'{key} has dtype {value.dtype}, which weights cannot have')
    return said


def unusable(value: Tensor) -> str:
    """Why a tensor cannot be a weight, for example a few bytes expanded to a large shape; empty if it can."""
    if value.is_nested or value.layout is not torch.strided or value.is_quantized:
        return 'is not a dense tensor'
    if not value.is_meta and value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f'is expanded to its shape {tuple(value.shape)} from fewer values'
    return ''


def _refuse_other_arguments(cls: type, arguments: dict[str, Any], source: str) -> None:
    known = inspect.signature(cls).parameters
    needed = {name for name, one in known.items() if one.default is one.empty}
    unknown, missing = sorted(arguments.keys() - known.keys()), sorted(needed - arguments.keys())
    if unknown or missing:
        raise ValueError(
            f'{source} does not fit {cls.__name__}: unknown arguments {short_repr(unknown)}, missing arguments '
            f'{missing}; it may be from another version of mdnc.'
        )


def _golden_input(net: _Pretrained) -> Tensor:
    # Waves that differ from value to value.
    plan = net.plan
    size = _golden_size(plan) if plan.in_size is None else plan.in_size
    largest = max(map(math.prod, plan.course(size).sizes.values()))
    dtype = torch.float64 if plan.in_size is None or largest <= GOLDEN_FINE else torch.float32
    shape = (plan.in_planes, *size)
    j = torch.arange(math.prod(shape), dtype=torch.float64, device='cpu')
    return ((0.3 * j).sin() + (0.011 * j).cos()).reshape(1, *shape).to(dtype)


def _golden_size(plan: Plan) -> Size:
    # One axis long enough for all stages is enough, and 2 and 3 keep an axis that is never halved from starving.
    size = (plan.min_side + 1, 2, 3)[: plan.order]
    return size if plan.refusal(size) is None else (plan.min_side + 1,) * plan.order


@torch.no_grad()
def _golden_output(net: _Pretrained, x: Tensor) -> Tensor:
    if any(weight.dtype != x.dtype for weight in net.parameters()):
        state = net.state_dict()
        weights = {key: value.to(x.dtype) if value.is_floating_point() else value for key, value in state.items()}
        net = built(type(net), net.config, weights, '')
    with torch.autocast('cpu', enabled=False), plain():
        given = net(x)
        y = torch.cat([each.flatten() for each in (given if isinstance(given, tuple) else (given,))])
    return y[:: max(1, y.numel() // GOLDEN_VALUES)].contiguous()


def _difference(net: _Pretrained, golden: dict[str, Tensor], source: str) -> float:
    if golden.keys() != {'input', 'output'} or golden['input'].dtype not in GOLDEN_TOLERANCE:
        raise ValueError(f'{source} has no example of input and output in float32 or float64.')
    try:
        y = _golden_output(net, golden['input'])
    except (TypeError, ValueError) as error:
        raise ValueError(f'{source} has an example that its network refuses: {error}') from error
    wanted, off, allowed = golden['output'], math.inf, GOLDEN_TOLERANCE[y.dtype]
    if y.shape == wanted.shape and y.dtype == wanted.dtype:
        off = float((y - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
    if off <= allowed:
        return off
    raise ValueError(
        f'{source} was loaded, but its output for the saved example differs by {off:.1e} of the largest value '
        f'({allowed:g} is allowed): this version of mdnc or torch computes something else than the one that saved it.'
    )
