"""The forecast is what really happens: real and forecast bytes are counted and compared over the catalogue."""

import copy
import random
from functools import partial

import pytest
import torch
from torch import nn

from mdnc.analysis import fitting_level, max_batch, max_size, memory_forecast, saved_bytes
from mdnc.modules.resnet import DecoderNet2d, EncoderNet2d, UNet1d, UNet2d, UNet3d
from mdnc.ops.path import MEMORY_LEVELS
from tests import catalogue
from tests.analysis.entries import EVERY
from tests.catalogue import identity

# Each network at one of the levels that are not its default, in turn.
OTHER_LEVELS = [level for level in MEMORY_LEVELS if level != 'lean']
IN_TURN = [pytest.param(entry, OTHER_LEVELS[i % 4], id=identity(entry)) for i, entry in enumerate(catalogue.NETWORKS)]
UNETS = [pytest.param(entry, level) for entry in catalogue.NETWORKS if entry.name == 'UNet2d' for level in OTHER_LEVELS]


def counted(net, x):
    """The bytes kept for backward, counted apart from the library: every storage once, by its address."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or len(kept) - 1, lambda i: kept[i]):
        output = net(x)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), x)}
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    del output
    return sum(size for address, size in sizes.items() if address not in own)


def state_bytes(net, make):
    """Bytes of gradients and of an optimizer's state after a real step."""
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer = make([p for p in net.parameters() if p.requires_grad])
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    return tuple(sum(t.numel() * t.element_size() for t in tensors) for tensors in (gradients, states))


@EVERY
def test_saved_equals_the_real_count_to_the_byte(entry):
    net, x = entry.build(), entry.sample()
    forecast = memory_forecast(net, entry.input, batch_size=2, optimizer=None)
    assert forecast.saved == counted(net, x) == saved_bytes(net, x) > 0


@pytest.mark.parametrize(('entry', 'level'), [*IN_TURN, *UNETS])
def test_saved_equals_the_real_count_at_every_memory_level(entry, level):
    net = entry.build()
    net.memory = level
    assert memory_forecast(net, entry.input, batch_size=2, optimizer=None).saved == counted(net, entry.sample())


@pytest.mark.parametrize('entry', catalogue.CLASSES, ids=identity)
def test_stages_add_up(entry):
    forecast = memory_forecast(entry.build(), entry.input)
    for field in ('parameters', 'gradients', 'optimizer', 'saved', 'total'):
        assert getattr(forecast, field) == sum(getattr(stage, field) for stage in forecast.stages)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_saved_in_another_dtype(dtype):
    net = UNet2d(4, [1, 2, 1])
    forecast = memory_forecast(net, (13, 10), 2, dtype)
    assert next(net.parameters()).dtype is torch.float32
    net = net.to(dtype)
    assert forecast.saved == counted(net, torch.rand(2, 1, 13, 10, dtype=dtype))
    assert forecast.parameters == sum(p.numel() * p.element_size() for p in net.parameters())


@pytest.mark.parametrize('level', MEMORY_LEVELS)
@pytest.mark.parametrize('family', [UNet2d, EncoderNet2d])
def test_saved_under_autocast(family, level):
    net = family(4, [1, 2, 1])
    net.memory = level
    with torch.autocast('cpu', torch.bfloat16):
        forecast, real = memory_forecast(net, (13, 10), 2), counted(net, torch.rand(2, 1, 13, 10))
    assert forecast.saved == real


@pytest.mark.parametrize(
    ('word', 'make'),
    [
        ('adamw', torch.optim.AdamW),
        ('adam', torch.optim.Adam),
        ('sgd', torch.optim.SGD),
        ('momentum', partial(torch.optim.SGD, momentum=0.9)),
        ('rmsprop', torch.optim.RMSprop),
        (torch.optim.NAdam, torch.optim.NAdam),
    ],
)
def test_gradients_and_optimizer_state_equal_a_real_step(word, make):
    net = EncoderNet2d(4, [1, 1])
    next(net.parameters()).requires_grad_(False)  # a frozen parameter takes neither
    forecast = memory_forecast(net, (13, 10), optimizer=word)
    assert (forecast.gradients, forecast.optimizer) == state_bytes(net, make)


def test_no_optimizer():
    assert memory_forecast(EncoderNet2d(4, [1, 1]), 13, optimizer=None).optimizer == 0


def test_a_frozen_network_keeps_nothing():
    net = EncoderNet2d(4, [1, 1]).requires_grad_(False)
    forecast = memory_forecast(net, 13)
    assert (forecast.saved, forecast.gradients, forecast.optimizer) == (0, 0, 0)
    assert forecast.total == forecast.parameters > 0


def test_any_module_with_shared_weights_dropout_and_statistics():
    shared = nn.Linear(6, 6)
    net = nn.Sequential(shared, nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Sequential(shared, nn.Sigmoid()))
    forecast = memory_forecast(net, (6,), 3)
    assert forecast.saved == counted(net, torch.rand(3, 6))
    assert forecast.parameters == 4 * (42 + 12)
    assert [stage.name for stage in forecast.stages] == ['0', '1', '2', '3.1']  # the shared layer is one part


class Keeper(nn.Module):
    """Holds a weight of its own, remembers its input, and may fail."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen, self.fails = nn.Parameter(torch.ones(3)), None, False
        self.inner = nn.BatchNorm1d(3)

    def forward(self, x):
        self.seen = x
        y = self.inner(x * self.weight + random.random())
        if self.fails:
            raise RuntimeError('as asked')
        return y


@pytest.mark.parametrize('fails', [False, True])
def test_the_network_and_the_random_state_stay_as_they_are(fails):
    net = Keeper()
    net.fails = fails
    before, states = copy.deepcopy(net.state_dict()), (random.getstate(), torch.get_rng_state())
    for figure in (lambda: memory_forecast(net, (3,), 4), lambda: saved_bytes(net, torch.rand(4, 3))):
        if fails:
            with pytest.raises(RuntimeError, match='as asked'):
                figure()
        else:
            figure()
    assert random.getstate() == states[0]
    assert net.seen is None
    assert not net.inner._forward_hooks
    assert not net.inner._forward_pre_hooks
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_what_is_outside_the_parts_has_a_row():
    names = [stage.name for stage in memory_forecast(Keeper(), (3,), 4).stages]
    assert names == ['inner', '(itself)']


def test_nothing_is_allocated_and_no_gradient_mode_matters():
    with torch.device('meta'):
        net = UNet3d(64, [2, 2, 2, 2])
    with torch.inference_mode():
        forecast = memory_forecast(net, (1, 256, 256, 256), batch_size=2)
    assert forecast.saved > 2**35  # far more than any test machine has
    assert forecast == memory_forecast(net, 256, batch_size=2)


@pytest.mark.parametrize('level', MEMORY_LEVELS)
def test_a_network_on_meta_has_the_forecast_of_one_on_the_cpu(level):
    with torch.device('meta'):
        away = UNet2d(4, [2, 1])
    here = UNet2d(4, [2, 1])
    away.memory = here.memory = level
    assert memory_forecast(away, 32) == memory_forecast(here, 32)


def test_text_and_plain_values():
    forecast = memory_forecast(UNet1d(4, [1, 1]), 16)
    lines = str(forecast).splitlines()
    assert [line.split()[0] for line in lines[2:-2]] == [stage.name for stage in forecast.stages]
    assert lines[-1].split()[0] == 'UNet1d'
    plain = forecast.to_dict()
    assert plain['total'] == forecast.total
    assert plain['peak'] == forecast.peak == max(stage['peak'] for stage in plain['stages'])
    assert plain['stages'][0]['name'] == 'conv_first'


@pytest.mark.parametrize(
    ('arguments', 'error', 'text'),
    [
        ({'net': 3}, TypeError, 'net must be a torch.nn.Module, not int'),
        ({'input_size': (2, 13, 10)}, ValueError, 'has 2 channels, but UNet2d takes 1'),
        ({'input_size': (1, 1)}, ValueError, r'input size \(1, 1\) is too small'),
        ({'input_size': '13'}, TypeError, "input_size='13'"),
        ({'input_size': (13, 10, 3, 3)}, ValueError, 'input_size'),
        ({'batch_size': 0}, ValueError, 'batch_size=0'),
        ({'dtype': torch.int8}, TypeError, 'dtype=torch.int8'),
        ({'optimizer': 'lion'}, ValueError, "optimizer='lion'"),
        ({'optimizer': 3}, TypeError, 'optimizer=3'),
        ({'optimizer': torch.optim.Adafactor}, ValueError, 'Adafactor computes with values'),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, error, text):
    with pytest.raises(error, match=text):
        memory_forecast(**{'net': UNet2d(4, [1, 1]), 'input_size': (13, 10)} | arguments)


def test_a_decoder_takes_its_own_size_only():
    net = DecoderNet2d(4, [1, 1], out_size=(13, 10), in_length=3)
    assert memory_forecast(net, 3) == memory_forecast(net, (3,))
    with pytest.raises(ValueError, match=r'must be \(3,\)'):
        memory_forecast(net, 4)
    with pytest.raises(TypeError, match='input_size'):
        memory_forecast(net, 3.0)
    with pytest.raises(TypeError, match='not DecoderNet2d'):
        max_size(net, 1, 2**30)


def test_the_largest_batch_and_size_are_just_within_the_budget():
    budget = 10**7 + 3
    net = UNet2d(4, [1, 1, 1])
    batch = max_batch(net, (33, 20), budget)
    assert memory_forecast(net, (33, 20), batch).peak <= budget < memory_forecast(net, (33, 20), batch + 1).peak
    side, other = max_size(net, 2, budget, optimizer='sgd')
    assert side == other
    peaks = [memory_forecast(net, length, 2, optimizer='sgd').peak for length in (side, side + 1)]
    assert peaks[0] <= budget < peaks[1]


def test_what_never_fits_is_said():
    net = UNet2d(4, [1, 1])
    with pytest.raises(ValueError, match=r'a batch of 1 needs .* MiB, more than the budget of 1\.00 KiB'):
        max_batch(net, 64, 1024)
    with pytest.raises(ValueError, match=r'the smallest size, .* needs'):
        max_size(net, 1, 1024)
    with pytest.raises(ValueError, match='budget=0'):
        max_batch(net, 64, 0)


def test_the_level_that_fits_recomputes_no_more_than_it_must():
    net, size, needs = UNet2d(4, [2, 1, 1]), (330, 200), {}
    for level in MEMORY_LEVELS:
        net.memory = level
        needs[level] = memory_forecast(net, size, 4).peak
    assert [*needs.values()] == sorted(needs.values(), reverse=True)
    net.memory = 'plain'
    for level in ('fast', 'lean', 'leaner', 'least'):
        assert fitting_level(net, size, 4, needs[level]) == level
    with pytest.raises(ValueError, match="even level 'least' needs"):
        fitting_level(net, size, 4, needs['least'] - 1)
    assert net.memory == 'plain'
    with pytest.raises(TypeError, match='not Linear'):
        fitting_level(nn.Linear(2, 2), (2,), 1, 100)
