"""Base class of all networks: modules built from a plan, checks of inputs, and sizes without running."""

import contextlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn
from typing_extensions import Self

from mdnc.modules import _checks, _layers, _options, _plan, _sizes, pooling, ragged
from mdnc.modules._docstrings import describe
from mdnc.modules._plan import Plan, Schedule, Single, Stage
from mdnc.modules._sizes import Size
from mdnc.modules.ragged import Ragged, extent, through
from mdnc.modules.resnet.block import Block
from mdnc.modules.resnet.features import Featured
from mdnc.modules.resnet.stage import _BlockResStkNd, crop
from mdnc.ops import path
from mdnc.ops.backend import DEFAULT
from mdnc.ops.channels_last import as_given


class Network(Featured):
    """Base of the networks: builds and runs a plan.

    Args:
        plan: The plan of the network.
        config: The constructor's arguments as plain values, without ``order``.
        options: Checked options of the network; those about building it are applied here.

    Example:
        >>> import tempfile
        >>> import mdnc
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1])
        >>> folder = tempfile.mkdtemp()
        >>> net.save_pretrained(folder)
        >>> again = mdnc.modules.resnet.EncoderNet2d.from_pretrained(folder)
        >>> isinstance(again, mdnc.modules.Network), again.config == net.config
        (True, True)
    """

    # Attributes that are None if a part is missing, as in checkpoints of the documented networks.
    _absent: ClassVar[tuple[str, ...]] = ()

    # What training keeps and who computes, see `mdnc.ops.fused.block`.
    _memory: str = 'lean'
    backend: str = DEFAULT

    #: Paths of frozen parts, which always run in eval mode, see `mdnc.modules.freeze`.
    held: tuple[str, ...] = ()

    def __init__(self, plan: Plan, config: dict[str, Any], options: dict[str, Any] | None = None) -> None:
        super().__init__(plan, config)
        self._take(plan, config)
        known = options or {}
        with torch.device(known['device']) if known.get('device') is not None else contextlib.nullcontext():
            self._build()
        if known.get('dtype') is not None:
            self.to(known['dtype'])
        self._begin(known)
        self.memory = known.get('memory', 'lean')

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        describe(cls)

    def _take(self, plan: Plan, config: dict[str, Any]) -> None:
        self._plan, self._config = plan, config
        self._schedules = {training: plan.schedule(training) for training in (True, False)}
        self._results = {training: plan.results(training) for training in (True, False)}

    def _follow(self, plan: Plan, config: dict[str, Any], anew: Sequence[str] = ()) -> None:
        """Change to another plan: parts in both are kept, the others are rebuilt.

        Args:
            plan: The plan.
            config: The constructor's arguments of that plan.
            anew: Paths of parts that are rebuilt in any case.
        """
        old, weight = self._plan, next(self.parameters())
        same = [part.name for part in plan.parts if old.named.get(part.name) == part and part.name not in anew]
        kept = {name: self.get_submodule(name) for name in same}
        for top in old.modules:
            delattr(self, top)
        self._take(plan, config)
        with weight.device:
            self._build(kept)
        for part in plan.parts:
            if part.name not in kept:
                self.get_submodule(part.name).to(weight.dtype)
        self.held = tuple(name for name in self.held if name in plan.named)
        self.memory = self.memory
        for each in self.modules():
            if isinstance(each, (Block, _BlockResStkNd)):
                each.backend = self.backend
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, as torch does; frozen parts stay in eval."""
        super().train(mode)
        for name in self.held:
            self.get_submodule(name).eval()
        return self

    def _build(self, kept: Mapping[str, nn.Module] = MappingProxyType({})) -> None:
        for name in self._absent:
            setattr(self, name, None)
        for top in self._plan.modules:
            parts = self._plan.members(top)
            built = [kept[part.name] if part.name in kept else _built(part, self._plan.order) for part in parts]
            listed = parts[0].name != top
            setattr(self, top, nn.ModuleList(built) if listed else built[0])

    def _begin(self, options: dict[str, Any]) -> None:
        # Initial values of the weights.
        if options.get('init') == 'kaiming':
            _layers.begin(self, options['activator'])
        if options.get('zero_init'):
            for each in self.modules():
                if isinstance(each, Block):
                    each.begin_as_shortcut()

    @property
    def memory(self) -> str:
        """What training keeps for backward, from most to least. It can be set at any time and changes no result.

        - ``'plain'``: torch's own layers: three tensors per unit of norm, activation and convolution.
        - ``'fast'``: two tensors, the unit's input and the convolution's.
        - ``'lean'``: one tensor, the unit's input. On a CPU blocks whose input has up to 32768 values are torch's own
          layers, unless the network is optimized: they are quicker, and there is little to save.
        - ``'leaner'``: as ``'lean'``, but outputs of 1 × … × 1 convolutions are recomputed.
        - ``'least'``: one tensor per block, which is recomputed.
        """
        return self._memory

    @memory.setter
    def memory(self, level: str) -> None:
        _checks.word(type(self).__name__, 'memory', level, _options.MEMORY_LEVELS)
        for each in self.modules():
            if isinstance(each, (Network, Block, _BlockResStkNd)):
                each._memory = level

    def paths(self, *, ragged: bool = False) -> list[path.Taken]:
        """The path that each unit of the blocks takes at present, and the reason if it is not the fused one.

        Args:
            ragged: Whether for a batch with different `lengths`.

        Example:
            >>> import mdnc
            >>> net = mdnc.modules.resnet.EncoderNet1d(8, [1, 1], memory='plain')
            >>> print(net.paths()[0])
            netbody.1.conv_scale.conv1: plain, for the plain path was asked for
        """
        blocks = ((name, each) for name, each in self.named_modules() if isinstance(each, Block))
        return [unit for name, each in blocks for unit in each.paths(f'{name}.', ragged=ragged)]

    @property
    def nlayers(self) -> int:
        """Number of convolutional layers along the depth, without the fully connected one."""
        return self._plan.nlayers

    @property
    def min_size(self) -> Size:
        """Smallest equal-sided spatial size of the input; for networks with a single size, this size."""
        if self._plan.in_size is not None:
            return self._plan.in_size or (self._plan.in_planes,)
        return (self._plan.min_side,) * self._plan.order

    @property
    def input_size(self) -> tuple[int, ...]:
        """Shape of the input without the batch, for networks with a single one, such as decoders.

        Raises:
            AttributeError: The network takes any size.
        """
        if self._plan.in_size is None:
            raise AttributeError(f'{type(self).__name__} takes inputs of any size, so it has no input_size.')
        return (self._plan.in_planes, *self._plan.in_size)

    def stage_sizes(self, size: int | Sequence[int]) -> tuple[Size, ...]:
        """Spatial size of the output of each stage (in a decoder after cropping), without running the network.

        Args:
            size: Spatial size of the input, one int or one for each axis; for a decoder `min_size`, its only one.

        Raises:
            ValueError: The network refuses inputs of this size.

        Example:
            >>> import mdnc
            >>> mdnc.modules.resnet.EncoderNet2d(8, [1, 1, 1]).stage_sizes((33, 20))
            ((17, 10), (9, 5), (5, 3))
        """
        owner, fixed = type(self).__name__, self._plan.in_size is not None
        checked = _checks.per_axis(owner, 'size', size, len(self.min_size) if fixed else self._plan.order)
        if fixed and checked != self.min_size:
            raise ValueError(f'{owner}: size={checked} is not possible: {self._one_size()}.')
        self._refuse_starved(checked, batch=2, training=False)
        return self._plan.stage_sizes(checked)

    def output_size(self, size: int | Sequence[int]) -> Size:
        """Spatial size of the last map (before an encoder's head), without running the network.

        Args:
            size: Spatial size of the input, one int or one for each axis.

        Raises:
            ValueError: The network refuses inputs of this size.
        """
        return self.stage_sizes(size)[-1]

    def forward(self, x: Tensor, *, lengths: Any = None) -> Any:
        """Run the network: ``(B, in_planes, L1, …)``, or a vector, → the output of the last part.

        Args:
            x: The input.
            lengths: Size of each sample of a padded batch (see `pad_batch`), ints ``(B, axes)``, for signals also
                ``(B,)``. The output of each sample is the same as without the batch, and maps are zero
                in the padding; values in the padding of x are ignored. ``None`` if nothing is padded.

        Raises:
            TypeError: The input or `lengths` has the wrong type.
            ValueError: The input or `lengths` has the wrong value, or a sample is too small for the stages.
        """
        if isinstance(lengths, fx.Proxy):
            _refuse_in_graph(lengths)
            lengths = None
        given = self._run(self._entered(x, lengths), self._schedules[self.training])
        names = self._results[self.training]
        several = len(names) > 1 or (self.training and self._plan.outputs)
        found = tuple(self._left(given[name], name, x, lengths) for name in names)
        if self.backend != DEFAULT and not _checks.traced(x):
            found = tuple(as_given(y, x) for y in found)
        return found if several else found[0]

    def _entered(self, x: Tensor, lengths: Any) -> Tensor | Ragged:
        # Inputs that pass this check run without errors.
        plan, owner = self._plan, type(self).__name__
        if lengths is not None and plan.in_size is not None:
            raise ValueError(f'{owner}: lengths= cannot be used in a network with a single size: {self._one_size()}.')
        if _checks.traced(x):
            return x if lengths is None else self._traced(x, lengths)
        self._admit(x)
        if lengths is None:
            self._refuse_starved(tuple(x.shape[2:]), x.shape[0], self.training)
            return x
        sizes = ragged.sizes(owner, lengths, x.shape[0], plan.order)
        ragged.refuse_beyond(owner, sizes, tuple(x.shape[2:]))
        self._refuse_starved_among(sizes)
        return ragged.boxed(x, sizes)

    def _left(self, y: Tensor | Ragged, name: str, x: Tensor, lengths: Any) -> Tensor:
        # The output of a part, at its size for the whole input.
        if lengths is None or _checks.traced(x):
            return ragged.values(y)
        return ragged.unboxed(ragged.values(y), self._plan.course(tuple(x.shape[2:])).sizes[name])

    def _run(self, x: Tensor | Ragged, schedule: Schedule, wanted: Sequence[str] = ()) -> dict[str, Any]:
        """Run parts in order.

        Args:
            x: The input of the network, plain or padded.
            schedule: Which parts.
            wanted: Names of values to return beside the output, see `_plan.Part`.

        Returns:
            The output and the wanted values by name; values that no later part needs are freed on the way.
        """
        given: dict[str, Any] = {'': x}
        strides, before = self._strides(x), ''
        for part, let_go in zip(schedule.parts, schedule.let_go, strict=True):
            source = given[part.takes or before]
            given[f'{part.name}:in'] = extent(source)  # only sizes are taken from the input of a part
            if isinstance(part, Stage):
                self._run_stage(part, source, given, strides.get(part.name))
            elif isinstance(part, Single):
                given[part.name] = self._run_single(part, source, x)
            before = part.name
            for name in let_go:
                if name not in wanted:
                    given.pop(name, None)
        return given

    def _run_stage(self, part: Stage, x: Tensor | Ragged, given: dict[str, Any], stride: Size | None) -> None:
        stage = self._module(part.name)
        inputs = (x, given[part.skip]) if part.skip else (x,)
        words: dict[str, Any] = {}
        if part.like:
            like = given[part.like]
            words['size'] = extent(like) if isinstance(like, (Tensor, Ragged)) else like
        if stride is not None and stride != part.resize.stride:
            words['stride'] = stride
        y = stage(*inputs, **words)
        if part.holds:
            y, given[f'{part.name}:held'] = y
        given[f'{part.name}:whole'] = y
        given[part.name] = y if part.size is None else crop(y, part.size, self._plan.order)

    def _module(self, name: str) -> Any:
        # As get_submodule, which torch.export with strict=True can't trace in torch 2.8.
        module: Any = self
        for each in name.split('.'):
            module = getattr(module, each)
        return module

    def _run_single(self, part: Single, x: Any, source: Tensor | Ragged) -> Any:
        layer, module = part.layers[0], self._module(part.name)
        if isinstance(x, Ragged):
            y = through(part.layers, [module] if len(part.layers) == 1 else module, x)
            return y.cleaned() if isinstance(y, Ragged) else y
        if isinstance(layer, _plan.Linear):
            x = x.flatten(1)
            if layer.amplitudes:
                values, real = source[:2] if isinstance(source, Ragged) else (source, None)
                x = torch.cat((x, pooling.log_scale(values, real).to(x.dtype)), 1)
        elif part.vector:
            x = x[(..., *(None,) * self._plan.order)]  # (B, length) → (B, length, 1, …)
        return path.call(module, x, self._memory, self.backend) if part.outer else path.plainly(module, x)

    def _strides(self, x: Tensor | Ragged) -> dict[str, Size]:
        if self._plan.small != 'keep' or self._plan.in_size is not None or _checks.traced(x):
            return {}
        # All samples of a padded batch have the same, see `_refuse_starved_among`.
        size = x.real.sizes[0].tolist() if isinstance(x, Ragged) else x.shape[2:]
        return self._plan.course(tuple(size)).strides

    def _admit(self, x: Tensor) -> None:
        plan = self._plan
        lengths = plan.in_size if plan.in_size is not None else [f'L{axis + 1}' for axis in range(plan.order)]
        shape = ['B', plan.in_planes, *lengths]
        _checks.tensor(type(self).__name__, x, shape, next(self.parameters(), None))

    def _traced(self, x: Tensor, lengths: Any) -> Ragged:
        if self._plan.small == 'keep':
            raise ValueError(
                f"{type(self).__name__}: small='keep' depends on the size of each sample, which a traced graph "
                'does not know: use small=\'error\' with lengths= there.'
            )
        # A tensor stays an input of the graph; other values become constants.
        return ragged.padded(x, lengths if isinstance(lengths, Tensor) else torch.tensor(lengths))

    def _one_size(self) -> str:
        given = self._plan.course(()).sizes[self._plan.last]
        return f'to give {_sizes.text(given)} it needs {self.min_size}' if given else f'it needs {self.min_size}'

    def _refuse_starved_among(self, sizes: Sequence[Size]) -> None:
        plan, owner = self._plan, type(self).__name__
        strides = {size: plan.course(size).strides for size in dict.fromkeys(sizes)} if plan.small == 'keep' else {}
        odd = next((size for size, own in strides.items() if own != strides[sizes[0]]), None)
        if odd is not None:
            raise ValueError(
                f"{owner}: small='keep' strides samples 0 and {sizes.index(odd)} of lengths, of sizes {sizes[0]} and "
                f'{odd}, differently, so that they cannot run in one batch.'
            )
        least = tuple(map(min, zip(*sizes, strict=True)))
        if (
            plan.refusal(least, len(sizes), self.training) is not None
        ):  # a larger size is never refused if this one is not
            for number, size in enumerate(sizes):
                self._refuse_starved(size, len(sizes), self.training, f' of sample {number}')

    def _refuse_starved(self, size: Size, batch: int, training: bool, whose: str = '') -> None:
        refusal = self._plan.refusal(size, batch, training)
        if refusal is not None:
            fixed = self._plan.in_size is not None
            least = self.min_size if fixed else (self._plan.smallest_side(batch, training),) * self._plan.order
            raise ValueError(
                f'{type(self).__name__}: input size {size}{whose} is too small for {len(self._plan.stages)} stages: '
                f'stage {refusal.stage + 1} would hold {_sizes.text(refusal.held)}, and {refusal.reason}. '
                f'Smallest equal-sided size that works: {least}.'
            )


@fx.wrap
def _refuse_in_graph(lengths: Any) -> None:
    """Refuse lengths when a graph of torch.fx that was traced without them runs."""
    if lengths is not None:
        raise ValueError(
            f'lengths={lengths!r}: this graph of torch.fx was traced without lengths and does not accept them.'
        )


def _built(part: _plan.Part, order: int) -> nn.Module:
    return _BlockResStkNd(part, order) if isinstance(part, Stage) else _layers.build(part, order)


def plan_of(owner: str, net: Any) -> Plan:
    """The plan of a network, for functions that need a network of mdnc."""
    if isinstance(net, Network):
        return net.plan
    raise TypeError(f'{owner}: net must be one of the networks of mdnc, not {type(net).__name__}.')
