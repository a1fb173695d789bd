"""Every public argument of the figures: what is not legal is refused by name, in words of ours, and nothing is left."""

import copy
import json
import logging
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from mdnc import analysis
from mdnc.modules.resnet import BlockPlain2d, EncoderNet2d, UNet2d
from tests.contribs.torchsummary import odd_modules

SIZE = (1, 16, 16)
FIGURES = (analysis.memory_forecast, analysis.cost, analysis.describe)
HALVES = (torch.float16, torch.bfloat16)


@pytest.fixture(scope='module')
def net():
    return EncoderNet2d(4, [1, 1])


def nested():
    with warnings.catch_warnings():  # torch says once a process that they are a prototype
        warnings.filterwarnings('ignore', '.*nested tensors')
        return torch.nested.nested_tensor([torch.zeros(1, 9, 8), torch.zeros(1, 9, 7)])


class Bilinear(nn.Module):
    def forward(self, one, two):
        return one * two


@pytest.mark.parametrize('figures', FIGURES, ids=lambda figures: figures.__name__)
@pytest.mark.parametrize(
    ('arguments', 'error', 'text'),
    [
        ((3, SIZE), TypeError, 'net must be a torch.nn.Module, not int'),
        ((EncoderNet2d, SIZE), TypeError, 'net must be a torch.nn.Module, not type'),
        ((nn.LazyLinear(3), (5,)), ValueError, 'net has parameters without a shape yet: weight, bias'),
        ((Bilinear(), (5,)), TypeError, r'Bilinear must take 1 input, but its forward has the arguments \(one, two\)'),
        ((None, (1, 16, 10**30)), ValueError, r'an input of shape \(1, 1, 16, 10+.* has more than 2\^50 values'),
        ((None, (1, 10**10, 10**10)), ValueError, r'an input of shape .* has more than'),
        ((None, SIZE, 10**30), ValueError, r'an input of shape \(10+.* has more than'),
        ((None, ()), ValueError, r'input_size=\(\) must be'),
        ((None, (1, 16, float('nan'))), TypeError, r'input_size=\(1, 16, nan\) must be'),
        ((None, SIZE, True), TypeError, 'batch_size=True must be'),
        ((None, SIZE, 1, 'float32'), TypeError, "dtype='float32' must be one of torch.float32"),
        ((None, SIZE, 1, torch.float8_e4m3fn), TypeError, 'dtype=torch.float8_e4m3fn must be one of'),
        ((None, SIZE, 1, torch.int64), TypeError, 'dtype=torch.int64 must be one of'),
    ],
)
def test_shared_arguments(figures, arguments, error, text, net):
    given, *others = arguments
    with pytest.raises(error, match=f'{figures.__name__}: {text}'):
        figures(net if given is None else given, *others)


@pytest.mark.parametrize('figures', FIGURES, ids=lambda figures: figures.__name__)
def test_numbers_of_numpy_are_numbers(figures, net):
    assert str(figures(net, np.int64(16), np.int32(2))) == str(figures(net, 16, 2))
    assert str(figures(net, np.array([16, 15]))) == str(figures(net, (16, 15)))


def test_no_traceback_of_torch_is_logged(caplog):
    with pytest.raises(RuntimeError, match='reduction dim'):
        analysis.memory_forecast(nn.Linear(3, 2), (5,))
    assert not caplog.records
    assert not logging.getLogger('torch._subclasses.fake_tensor').disabled


@pytest.mark.parametrize(
    ('call', 'error', 'text'),
    [
        (lambda net: analysis.cost(net, SIZE, training=1), TypeError, 'cost: training=1 must be True or False'),
        (lambda net: analysis.describe(net, SIZE, columns='macs'), TypeError, "describe: columns='macs' must be a"),
        (lambda net: analysis.describe(net, SIZE, columns=3), TypeError, 'describe: columns=3 must be a sequence'),
        (lambda net: analysis.describe(net, SIZE, depth=True), TypeError, 'describe: depth=True'),
        (
            lambda net: analysis.memory_forecast(net, SIZE, optimizer=nn.Linear),
            TypeError,
            'makes no optimizer from a list',
        ),
        (lambda net: analysis.memory_forecast(net, SIZE, optimizer=len), TypeError, 'makes a int, not an optimizer'),
        (lambda net: analysis.fitting_level(net, SIZE, 0, 1), ValueError, 'fitting_level: batch=0'),
        (lambda net: analysis.max_size(net, 1, float('inf')), TypeError, 'max_size: budget=inf'),
        (lambda net: analysis.max_batch(net, SIZE, float('nan')), TypeError, 'max_batch: budget=nan'),
        (lambda net: analysis.max_batch(net, SIZE, 10**40), ValueError, 'has more than 2'),
        (lambda net: analysis.measured_device('gpu'), ValueError, "measured_device: device='gpu' cannot be used here"),
        (lambda net: analysis.measured_device(1.5), TypeError, 'measured_device: device=1.5 must be a device'),
        (lambda net: analysis.measured_device('meta'), ValueError, "device='meta' computes nothing"),
        (lambda net: analysis.measured_device(dtype=torch.int64), TypeError, 'measured_device: dtype=torch.int64'),
        (lambda net: analysis.measured_device(dtype=None), TypeError, 'measured_device: dtype=None'),
        (lambda net: analysis.Device('x', 0, 1), ValueError, 'Device: bandwidth=0 must be a finite number above 0'),
        (lambda net: analysis.Device('x', 1, float('inf')), ValueError, 'Device: arithmetic=inf'),
        (lambda net: analysis.Device('x', '1', 1), TypeError, "Device: bandwidth='1' must be a finite number"),
        (lambda net: analysis.Device('x', True, 1), TypeError, 'Device: bandwidth=True'),
        (lambda net: analysis.cost(net, SIZE).floors('cpu'), TypeError, "floors: device='cpu' must be"),
        (lambda net: analysis.Thresholds(gradient=0.5), ValueError, 'Thresholds: gradient=0.5 .* of at least 1'),
        (lambda net: analysis.Thresholds(padding=float('nan')), ValueError, 'Thresholds: padding=nan'),
        (lambda net: analysis.Thresholds(few_values='a'), TypeError, "Thresholds: few_values='a'"),
        (lambda net: analysis.Thresholds(constant=-1), ValueError, 'Thresholds: constant=-1 .* of at least 0'),
        (lambda net: analysis.saved_bytes(3), TypeError, 'saved_bytes: net must be a torch.nn.Module'),
        (lambda net: analysis.saved_bytes(net), TypeError, 'saved_bytes: EncoderNet2d must take 0 inputs'),
        (lambda net: analysis.saved_bytes(net, torch.eye(3).to_sparse()), TypeError, 'an input must be a dense tensor'),
        (lambda net: analysis.figure(net, True), TypeError, 'figure: input_size=True'),
        (lambda net: analysis.draw(net, 3), TypeError, 'draw: path=3 must be a str or a path'),
        (lambda net: analysis.draw(net, b'net.svg'), TypeError, "draw: path=b'net.svg' must be"),
        (lambda net: analysis.draw(net, ''), ValueError, "draw: path='' must name a file"),
        (lambda net: analysis.draw(net, 'none/net.svg'), FileNotFoundError, 'there is no folder none'),
        (lambda net: analysis.draw(net, 'folder.svg'), IsADirectoryError, r'folder\.svg is a folder'),
    ],
)
def test_arguments(call, error, text, net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder.svg').mkdir()
    with pytest.raises(error, match=text):
        call(net)
    assert [path.name for path in tmp_path.iterdir()] == ['folder.svg']


@pytest.mark.parametrize(
    ('x', 'error', 'text'),
    [
        (torch.zeros(0, 1, 9, 8), ValueError, r'has shape \(0, 1, 9, 8\) and is empty'),
        (torch.zeros(2, 1, 0, 8), ValueError, 'is empty'),
        (torch.tensor(3.0), ValueError, 'is a single number'),
        (torch.zeros(2, 1, 9, 8, device='meta'), ValueError, 'is on the meta device'),
        (torch.zeros(2, 1, 9, 8).to_sparse(), TypeError, 'must be a dense tensor, not one of layout'),
        (torch.zeros(2, 1, 9, 8, dtype=torch.complex64), TypeError, 'not of torch.complex64'),
        ([1.0], TypeError, 'not list'),
    ],
)
@pytest.mark.parametrize('flat', [True, False])
def test_batches_that_cannot_be_diagnosed(x, error, text, flat, net):
    with pytest.raises(error, match=f'diagnose: x .*{text}'):
        analysis.diagnose(nn.Flatten() if flat else net, x)


def test_nested_tensors_are_refused(net):
    x = nested()
    with pytest.raises(TypeError, match='diagnose: x must be a dense tensor, not one nested'):
        analysis.diagnose(net, x)
    for call in (net, lambda x: analysis.saved_bytes(net, x), BlockPlain2d(1, 4)):
        with pytest.raises(TypeError, match=r'Net2d: the input must be|Block\w+: the input must be'):
            call(x)


class Nothing(nn.Module):
    def forward(self, x):
        return None


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        ({'loss': 'mse'}, TypeError, "loss='mse' must be a function of the output"),
        ({'loss': lambda y: None}, TypeError, 'loss must return a tensor with one value, not NoneType'),
        ({'loss': lambda y: y}, TypeError, r'loss must .* not a tensor of shape \(2, 2\)'),
        ({'loss': lambda y: y.sum().detach()}, ValueError, 'loss returns a value without a gradient'),
        ({'thresholds': {'few_values': 3}}, TypeError, 'thresholds=.* must be mdnc.analysis.Thresholds'),
        ({'thresholds': analysis.Thresholds}, TypeError, 'thresholds=.* must be mdnc.analysis.Thresholds'),
    ],
)
def test_how_a_batch_is_diagnosed(options, error, text, net):
    with pytest.raises(error, match=f'diagnose: {text}'):
        analysis.diagnose(net, torch.randn(2, 1, 16, 16), **options)


def test_a_network_that_gives_nothing_cannot_be_diagnosed():
    with pytest.raises(ValueError, match='diagnose: Nothing returns no values on this batch'):
        analysis.diagnose(Nothing(), torch.randn(2, 3))


def test_what_is_not_finite_is_json(net):
    broken = copy.deepcopy(net)
    nn.init.constant_(broken.fc.weight, float('nan'))
    plain = analysis.diagnose(broken, torch.randn(2, 1, 16, 16)).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False))['parts'][-1]['output'] is None
    assert 'finite' in {finding['kind'] for finding in plain['findings']}


@pytest.mark.parametrize(
    'change',
    [
        lambda values: values.update(modules=[]),
        lambda values: values.update(trainable='x'),
        lambda values: values['modules'][0].update(macs='x'),
        lambda values: values['modules'][0].update(depth=-1),
        lambda values: values['modules'][0].update(input=3),
        lambda values: values['modules'][0].update(path=None),
        lambda values: values.update(more=1),
        lambda values: values['modules'][0].pop('kept'),
    ],
)
def test_values_that_are_no_description_are_refused(change, net):
    values = analysis.describe(net, SIZE).to_dict()
    assert analysis.Description.from_dict(values).to_dict() == values
    change(values)
    with pytest.raises(ValueError, match='these are not the values of a description'):
        analysis.Description.from_dict(values)


class Restless(nn.Module):
    """Changes what it can reach, notes what it sees, and may then fail."""

    def __init__(self, fails):
        super().__init__()
        self.norm, self.weight = nn.BatchNorm1d(3), nn.Parameter(torch.ones(3))
        self.fails, self.seen, self.sizes = fails, [], set()

    def forward(self, x):
        self.norm.train(not self.norm.training)
        self.norm.register_forward_hook(lambda *_: None)
        self.seen.append(x)
        self.sizes.add(tuple(x.shape))
        random.random()
        y = self.norm(x) * self.weight + torch.rand(())
        if self.fails:
            raise LookupError('no such thing')
        return y


CALLS = {
    'memory_forecast': lambda net: analysis.memory_forecast(net, (3,), 4),
    'cost': lambda net: analysis.cost(net, (3,), 4, training=True),
    'describe': lambda net: analysis.describe(net, (3,), 4),
    'max_batch': lambda net: analysis.max_batch(net, (3,), 10**5),
    'saved_bytes': lambda net: analysis.saved_bytes(net, torch.rand(4, 3)),
    'diagnose': lambda net: analysis.diagnose(net, torch.rand(4, 3)),
}


def state_of(net):
    return (
        [module.training for module in net.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()],
        {key: value.clone() for key, value in net.state_dict().items()},
        [None if parameter.grad is None else parameter.grad.clone() for parameter in net.parameters()],
        (list(net.seen), set(net.sizes)),
    )


@pytest.mark.parametrize('fails', [False, True])
@pytest.mark.parametrize('call', CALLS.values(), ids=CALLS)
def test_nothing_is_changed_also_when_something_raises(call, fails):
    net = Restless(fails)
    net.weight.grad = torch.full((3,), 7.0)
    before, rng, python = state_of(net), torch.get_rng_state(), random.getstate()
    grad, stances = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    torch.rand(0)  # draws nothing
    if fails:
        with pytest.raises(LookupError, match='no such thing'):
            call(net)
    else:
        call(net)
    torch.testing.assert_close(state_of(net)[2:4], before[2:4], rtol=0, atol=0)
    assert [*state_of(net)[:2], state_of(net)[4]] == [*before[:2], before[4]]
    assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (grad, stances)
    assert random.getstate() == python
    if 'rand' not in call.__code__.co_names:  # those that draw no input of their own
        assert torch.equal(torch.get_rng_state(), rng)


def test_a_level_that_does_not_fit_leaves_the_level():
    net = UNet2d(4, [1, 1])
    net.memory = 'leaner'
    with pytest.raises(ValueError, match=r"even level 'least' needs"):
        analysis.fitting_level(net, (16, 16), 2, 1)
    assert {module.memory for module in net.modules() if hasattr(module, 'memory')} == {'leaner'}


def test_a_loss_that_raises_leaves_no_gradient():
    net = odd_modules.Returns(lambda y: y)

    def loss(y):
        y.sum().backward()
        raise LookupError('of the loss')

    with pytest.raises(LookupError, match='of the loss'):
        analysis.diagnose(net, torch.rand(4, 3), loss)
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize('dtype', HALVES)
def test_half_types_are_forecast(dtype, net):
    whole = analysis.memory_forecast(net, SIZE)
    assert analysis.memory_forecast(net, SIZE, 1, dtype).parameters * 2 == whole.parameters
