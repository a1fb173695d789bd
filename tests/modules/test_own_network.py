"""A network that mdnc does not have, from its plan on: what all networks can do is read off that."""

import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from typing_extensions import Unpack

import mdnc
from mdnc.checkpoints import loading
from mdnc.cli import main
from mdnc.modules import Network, Plan, _plan, resnet
from mdnc.modules._families import Frame, finished
from mdnc.modules._options import MEMORY_LEVELS, Options, PerStage
from mdnc.modules._plan import Conv, GlobalPool, Linear, Resize, Single, Stage, Unit
from mdnc.modules.resnet.arguments import Arguments


def convolutional(frame: Frame, in_planes: int, out_planes: int) -> Plan:
    """Down by blocks, up by single units: each grows by what a stage shrank, and the next crops what is too much."""
    first, before = frame.outer('first', 0, in_planes, frame.channel, bias=False), frame.channel
    down: list[Stage] = []
    for level, out in enumerate(frame.widths):
        resize = Resize('down', frame.strides[level])
        down.append(Stage(f'down.{level}', frame.blocks(level, frame.layers[level], (before, out, out), resize)))
        before = out
    up: list[Stage] = []
    for level, stage in reversed(list(enumerate(down))):
        units: tuple[Unit, ...] = (frame.unit(level, before, frame.channel, Resize('up', stage.resize.stride)),)
        like = f'{down[level + 1].name}:in' if up else ''
        up.append(Stage(f'up.{len(up)}', units, undoes=stage.name, like=like))
        before = frame.channel
    still = frame.blocks(0, 1, (before, before, before), _plan.still(frame.order))
    last = frame.conv('last', (1,) * frame.order, before, out_planes, bias=True)
    parts = (first, *down, *up, Stage('fit', still, like='first'), last)
    return finished(frame, Plan(frame.order, in_planes, parts, ()))


class _FCNNd(Network):
    """Fully convolutional network, after Long et al., arXiv:1411.4038.

    Args:
        channel: Channels of the first convolution.
        layers: Number of blocks of each stage.
        block: Kind of the blocks.
        kernel_size: Kernel size of the blocks.
        in_planes: Channels of the input.
        out_planes: Channels of the output.
        **options: See `Options`.

    Raises:
        ValueError: An argument or the input has the wrong value.
    """

    def __init__(
        self,
        order: int,
        channel: int,
        layers: Sequence[int],
        block: str = 'plain',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_planes: int = 2,
        **options: Unpack[Options],
    ) -> None:
        given = Arguments(type(self).__name__, Options, order, channel, layers, block, kernel_size, options)
        given.refuse('dropout', 'in a network that has none')
        in_planes, out_planes = given.planes('in_planes', in_planes), given.planes('out_planes', out_planes)
        frame = given.frame([given.channel * 2**level for level in range(len(given.layers))], len(given.layers))
        plan = given.checked(convolutional(frame, in_planes, out_planes))
        super().__init__(plan, given.config(in_planes=in_planes, out_planes=out_planes), given.options)


class FCN1d(_FCNNd):
    """Fully convolutional network for signals."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'plain',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_planes: int = 2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(1, channel, layers, block, kernel_size, in_planes, out_planes, **options)


class FCN2d(_FCNNd):
    """Fully convolutional network for images."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'plain',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_planes: int = 2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(2, channel, layers, block, kernel_size, in_planes, out_planes, **options)


class FCN3d(_FCNNd):
    """Fully convolutional network for volumes."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'plain',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_planes: int = 2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(3, channel, layers, block, kernel_size, in_planes, out_planes, **options)


SIZES = {FCN1d: (37,), FCN2d: (19, 14), FCN3d: (9, 11, 6)}
every = pytest.mark.parametrize(('cls', 'size'), SIZES.items(), ids=lambda each: getattr(each, '__name__', ''))


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in SIZES:
        monkeypatch.setattr(resnet, cls.__name__, cls, raising=False)
        monkeypatch.setitem(loading.NAMED, cls.__name__, cls)
    monkeypatch.setattr(resnet, '__all__', [*resnet.__all__, *(cls.__name__ for cls in SIZES)])


@every
def test_sizes_keys_and_layers_are_known(cls: Any, size: tuple[int, ...]):
    net = cls(4, [2, 1], in_planes=3)
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == net.plan.tensors
    assert net(torch.randn(2, 3, *size)).shape == (2, 2, *size)
    assert net.output_size(size) == size
    assert [tuple(each.shape[2:]) for each in net.features(torch.randn(1, 3, *size)).values()][:2] == [
        *net.stage_sizes(size)[:2]
    ]
    assert net.nlayers == 2 + 2 * 3 + 2 + 2
    smaller = tuple(side - 1 for side in net.min_size)
    with pytest.raises(ValueError, match=rf'{cls.__name__}: input size .* is too small for 5 stages'):
        net(torch.randn(2, 3, *smaller))
    with pytest.raises(ValueError, match=rf'{cls.__name__}: dropout=0.5 has no effect'):
        cls(4, [2, 1], dropout=0.5)


@every
def test_padded_batches_and_small_inputs_are_taken(cls: Any, size: tuple[int, ...]):
    net = cls(4, [1, 1], small='keep').double().eval()
    one = torch.randn(1, 1, *(side - 1 for side in size), dtype=torch.float64)
    x = torch.nn.functional.pad(one, (0, 1) * len(size))
    torch.testing.assert_close(net(x, lengths=[one.shape[2:]])[(..., *map(slice, one.shape[2:]))], net(one))
    assert net(torch.randn(1, 1, *(2,) * len(size), dtype=torch.float64)).isfinite().all()


@every
def test_every_level_of_memory_has_the_same_gradients_and_is_forecast(cls: Any, size: tuple[int, ...]):
    net, x = cls(4, [1, 1]).double(), torch.randn(2, 1, *size, dtype=torch.float64)
    found = {}
    for level in MEMORY_LEVELS:
        net.memory = level
        net.zero_grad()
        net(x).square().sum().backward()
        found[level] = [each.grad.clone() for each in net.parameters()]
        torch.testing.assert_close(found[level], found['plain'])
        forecast = mdnc.analysis.memory_forecast(net, (1, *size), batch_size=2)
        assert forecast.saved == mdnc.analysis.saved_bytes(net, x)


@every
def test_it_is_saved_loaded_copied_lifted_and_exported(cls: Any, size: tuple[int, ...], tmp_path: Any, public: None):
    net, x = cls(4, [1, 1], normalizer='batch').eval(), torch.randn(1, 1, *size)
    net.save_pretrained(tmp_path / 'net')
    for again in (
        mdnc.checkpoints.load(tmp_path / 'net'),
        cls.from_pretrained(tmp_path / 'net'),
    ):
        assert again.config == net.config and again.origin.difference == 0
        torch.testing.assert_close(again(x), net(x))
    torch.save(net.state_dict(), saved := io.BytesIO())
    saved.seek(0)
    cls(**net.config).load_state_dict(torch.load(saved, weights_only=True))
    if net.plan.order < 3:
        assert type(mdnc.modules.lift(net)) is list(SIZES)[net.plan.order]
    assert mdnc.export.to_torch_export(net, tmp_path / 'net.pt2').difference < 1e-4


@every
def test_the_command_line_has_it(
    cls: Any, size: tuple[int, ...], public: None, tmp_path: Any, capsys: pytest.CaptureFixture[str]
):
    words = [cls.__name__, '--channel', '4', '--layers', '[1,1]', '--input_size', str([1, *size])]
    assert main(['summary', *words]) == 0
    assert f'{cls.__name__}-' in capsys.readouterr().out
    assert main(['forecast', *words, '--batch_size', '2']) == 0
    assert 'up.1' in capsys.readouterr().out
    assert main(['draw', *words, '--output', str(tmp_path / 'net.svg')]) == 0
    assert 'down.1' in (tmp_path / 'net.svg').read_text()
    with pytest.raises(SystemExit, match='0'):
        main(['summary', cls.__name__, '--help'])
    assert '--out_planes VALUE' in (said := capsys.readouterr().out) and 'Channels of the output' in said


class TwoHeads(Network):
    """The last maps go to two heads, both of which are given in training and in eval."""

    def __init__(self, width: int) -> None:
        body = Single('body', (Conv(1, width, (3,), (1,), (1,), True), GlobalPool('avg')))
        heads = Single('kind', (Linear(width, 3),)), Single('age', (Linear(width, 1),), takes='body')
        super().__init__(Plan(1, 1, (body, *heads), ('body', 'kind', 'age'), outputs=('kind', 'age')), {'width': width})


def test_two_heads_give_a_tuple_which_is_saved_and_exported_but_no_answer(tmp_path: Any):
    net = TwoHeads(4)
    net.save_pretrained(tmp_path / 'net')
    again = TwoHeads.from_pretrained(tmp_path / 'net')
    assert again.origin.difference == 0
    assert [each.shape for each in again(torch.randn(2, 1, 7))] == [(2, 3), (2, 1)]
    assert mdnc.export.to_torch_export(net, tmp_path / 'net.pt2').difference < 1e-4
    answer = mdnc.checkpoints.Answer(net, {'answer': {'output': 'probabilities'}})
    with pytest.raises(ValueError, match=r'the network returns a tuple of 2 .* a prediction is made from one tensor'):
        answer.predict(torch.randn(2, 1, 7))


@pytest.mark.parametrize(
    'layer', [Conv(1, 1, (3,), (2,), (1,), True), _plan.Upsample('linear', (2,)), _plan.AveragePool((2,))]
)
def test_what_resizes_is_refused_outside_stages(layer: Any):
    with pytest.raises(ValueError, match=rf"Single: the {type(layer).__name__} of 'stem' changes the size"):
        Single('stem', (layer,))
