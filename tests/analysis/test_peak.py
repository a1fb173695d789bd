"""The peak that is forecast is the most that torch's allocator holds in a real step, within 5 %."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mdnc
from mdnc.analysis import memory_forecast, workspaces
from mdnc.analysis.allocated import allocated
from mdnc.modules.resnet import AE1d, DecoderNet2d, EncoderNet1d, EncoderNet2d, EncoderNet3d, UNet1d, UNet2d, UNet3d
from tests.kernels import MEASURED, OVER, UNDER

# Networks of every family and order, with other norms, blocks, strides and ways up, at sizes where maps count.
CASES = {
    'EncoderNet1d': (lambda: EncoderNet1d(16, [1, 1], in_planes=3), (4, 3, 1000)),
    'EncoderNet2d': (lambda: EncoderNet2d(16, [2, 1], out_length=4), (2, 1, 48, 37)),
    'EncoderNet2d, batch norm': (
        lambda: EncoderNet2d(16, [1, 1], normalizer='batch', activator='relu'),
        (4, 1, 32, 32),
    ),
    'EncoderNet2d, group norm': (lambda: EncoderNet2d(16, [1, 1], normalizer='group', norm_groups=4), (4, 1, 32, 32)),
    'EncoderNet3d': (lambda: EncoderNet3d(8, [1, 1]), (2, 1, 16, 14, 12)),
    'DecoderNet2d': (lambda: DecoderNet2d(16, [1, 1], out_size=(40, 33), in_length=8), (2, 8)),
    'AE1d, transposed': (lambda: AE1d(16, [1, 1], upsampling='transposed'), (2, 1, 800)),
    'UNet1d': (lambda: UNet1d(16, [1, 1], activator='gelu', strides=3), (2, 1, 900)),
    'UNet2d': (lambda: UNet2d(16, [1, 1], block='plain', upsampling='nearest'), (2, 1, 40, 40)),
    'UNet3d': (lambda: UNet3d(16, [1, 1], in_planes=2), (2, 2, 12, 16, 16)),
}
# By level, whether optimized, under autocast, and in which type.
WAYS = [
    ('lean', False, False, torch.float32),
    ('plain', False, True, torch.float32),
    ('least', True, False, torch.float32),
    ('fast', True, True, torch.float32),
    ('leaner', False, False, torch.bfloat16),
]


def step_peak(net, x, optimizer=None, autocast=False, loss=None, earlier=False):
    """The most bytes that a step holds, parameters, buffers, input and the optimizer's state among them."""
    loss = loss or (lambda y: y.float().square().mean())

    def forward_backward():
        with torch.autocast('cpu', torch.bfloat16) if autocast else contextlib.nullcontext():
            found = loss(net(x))
        found.backward()

    def step():
        forward_backward()
        if optimizer is not None:
            optimizer.step()

    step()  # makes the optimizer's state
    net.zero_grad(set_to_none=True)
    if earlier:
        forward_backward()
    states = [] if optimizer is None else [each for own in optimizer.state.values() for each in own.values()]
    gradients = [each.grad for each in net.parameters() if each.grad is not None]
    there = [*net.parameters(), *net.buffers(), x, *gradients, *(each for each in states if torch.is_tensor(each))]
    return sum(each.untyped_storage().nbytes() for each in there) + allocated(step)


def built(case, level, optimized, dtype):
    torch.manual_seed(0)
    make, shape = CASES[case]
    net = make().to(dtype)
    net.memory = level
    return (mdnc.optimize(net) if optimized else net), torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize('way', WAYS, ids=str)
@pytest.mark.parametrize('case', CASES)
def test_the_peak_is_that_of_a_real_step(case, way):
    level, optimized, autocast, dtype = way
    net, x = built(case, level, optimized, dtype)
    with torch.autocast('cpu', torch.bfloat16) if autocast else contextlib.nullcontext():
        forecast = memory_forecast(net, x.shape[1:], len(x))
    real = step_peak(net, x, torch.optim.AdamW(net.parameters()), autocast)
    assert UNDER * real <= forecast.peak <= OVER * real
    assert forecast.unmeasured == ()


@pytest.mark.parametrize('optimized', [False, True])
@pytest.mark.parametrize('case', ['EncoderNet1d', 'UNet2d', 'UNet3d'])
def test_the_peak_of_prediction(case, optimized):
    net, x = built(case, 'lean', optimized, torch.float32)
    forecast = memory_forecast(net, x.shape[1:], len(x), training=False)
    assert net.training
    net.eval()
    with torch.no_grad():
        net(x)
        there = sum(each.nbytes for each in (*net.parameters(), *net.buffers(), x))
        real = there + allocated(lambda: net(x))
    assert UNDER * real <= forecast.peak <= OVER * real
    assert forecast.gradients == forecast.optimizer == forecast.saved == 0


def test_a_loss_with_targets_counts():
    net, x = UNet2d(8, [1, 1], out_planes=20), torch.randn(2, 1, 40, 40)

    def loss(y):
        return F.cross_entropy(y, torch.zeros((len(y), *y.shape[2:]), dtype=torch.long))

    forecast = memory_forecast(net, 40, 2, optimizer=None, loss=loss)
    real = step_peak(net, x, loss=loss)
    assert UNDER * real <= forecast.peak <= OVER * real


# Operators of losses, activations and products, whose outputs are all that they allocate.
X, G, MAPS = torch.randn(300, 400), torch.randn(300, 400), torch.randn(2, 8, 20, 24, 24)
IMAGES = torch.randn(2, 8, 24, 24)
CLASSES, TABLE = torch.zeros(300, dtype=torch.long), torch.zeros(300, 400, dtype=torch.long)
VOLUMES, SIGNALS = MAPS[:, :, :16, :16, :16].contiguous(), torch.randn(2, 8, 4096)
HALF_IMAGES, IMAGE_PLACES = F.max_pool2d(IMAGES, 2, return_indices=True)
HALF_VOLUMES, VOLUME_PLACES = F.max_pool3d(VOLUMES, 2, return_indices=True)
ALONE = {
    'addmm': (X[0, :300], X, G.t()),
    'mm': (X, G.t()),
    'mean': (X,),
    'sum': (X,),
    'cat': ([X, G],),
    'repeat': (X, (2, 3)),
    'constant_pad_nd': (X, (1, 2)),
    'elu_backward': (G, 1, 1, 1, False, X),
    'leaky_relu_backward': (G, X, 0.1, False),
    '_prelu_kernel': (X, X[:1]),
    '_prelu_kernel_backward': (G, X, X[:1]),
    '_softmax': (X, 1, False),
    '_softmax_backward_data': (G, X, 1, torch.float32),
    '_log_softmax': (X, 1, False),
    '_log_softmax_backward_data': (G, X, 1, torch.float32),
    'nll_loss_forward': (X, CLASSES, None, 1, -100),
    'nll_loss_backward': (torch.ones(()), X, CLASSES, None, 1, -100, torch.tensor(300.0)),
    'nll_loss2d_forward': (IMAGES, torch.zeros(2, 24, 24, dtype=torch.long), None, 1, -100),
    'native_batch_norm': (MAPS, None, None, None, None, True, 0.1, 1e-5),
    'native_group_norm': (MAPS, None, None, 2, 8, 11520, 2, 1e-5),
    'upsample_trilinear3d_backward': (MAPS, [20, 24, 24], [2, 8, 10, 12, 12], True),
    'upsample_bilinear2d_backward': (IMAGES, [24, 24], [2, 8, 12, 12], True),
    'upsample_nearest2d_backward': (IMAGES, [24, 24], [2, 8, 12, 12]),
    'stack': ([X, G],),
    'flip': (X, [1]),
    'roll': (X, [1], [1]),
    'gather': (X, 0, TABLE),
    'index_select': (X, 0, CLASSES),
    'embedding': (X, CLASSES),
    'full_like': (X, 0.0),
    'randn_like': (X,),
    'new_ones': (X, [300, 400]),
    'select_backward': (X[:, 0], [300, 400], 1, 0),
    'amax': (X, [1]),
    'argmax': (X, 1),
    'bmm': (SIGNALS, SIGNALS.transpose(1, 2)),
    'baddbmm': (torch.zeros(2, 8, 8), SIGNALS, SIGNALS.transpose(1, 2)),
    'pixel_shuffle': (IMAGES, 2),
    'native_layer_norm': (X, [400], None, None, 1e-5),
    'reflection_pad1d': (SIGNALS, [1, 1]),
    'reflection_pad2d': (IMAGES, [1] * 4),
    'replication_pad3d': (VOLUMES, [1] * 6),
    'max_pool2d_with_indices': (IMAGES, [2, 2], [2, 2]),
    'max_pool2d_with_indices_backward': (*(HALF_IMAGES, IMAGES, [2, 2], [2, 2], [0, 0], [1, 1], False, IMAGE_PLACES),),
    'max_pool3d_with_indices': (VOLUMES, [2] * 3, [2] * 3),
    'max_pool3d_with_indices_backward': (
        *(HALF_VOLUMES, VOLUMES, [2] * 3, [2] * 3, [0] * 3, [1] * 3, False, VOLUME_PLACES),
    ),
    'avg_pool2d': (IMAGES, [2, 2], [2, 2]),
    'avg_pool2d_backward': (HALF_IMAGES, IMAGES, [2, 2], [2, 2], [0, 0], False, True, None),
    'avg_pool3d': (VOLUMES, [2] * 3, [2] * 3),
    'avg_pool3d_backward': (HALF_VOLUMES, VOLUMES, [2] * 3, [2] * 3, [0] * 3, False, True, None),
    '_adaptive_avg_pool2d': (IMAGES, [4, 4]),
    '_adaptive_avg_pool2d_backward': (IMAGES[:, :, :4, :4].contiguous(), IMAGES),
    'glu': (X, 1),
    'glu_backward': (X[:, :200].contiguous(), X, 1),
    'mse_loss_backward': (torch.ones(()), X, G, 1),
}


@pytest.mark.parametrize('name', ALONE)
def test_operators_that_are_said_to_need_no_workspace_need_none(name):
    operator, kept = getattr(torch.ops.aten, name), []
    assert f'aten.{name}' in workspaces.NOTHING
    needed = allocated(lambda: kept.append(operator(*ALONE[name])))
    outputs = kept[-1] if isinstance(kept[-1], (tuple, list)) else kept[-1:]
    assert needed <= sum(each.nbytes for each in outputs) + 4096


@pytest.mark.parametrize('threads', [1, 2])
@pytest.mark.parametrize('affine', [False, True])
def test_a_layer_norm_sums_in_each_thread(threads, affine):
    _, mean, rate = torch.ops.aten.native_layer_norm(X, [400], None, None, 1e-5)
    mask, before, kept = [True, affine, affine], torch.get_num_threads(), []
    torch.set_num_threads(threads)
    try:
        operator, args = torch.ops.aten.native_layer_norm_backward, (G, X, [400], mean, rate, X[0], X[1], mask)
        needed = allocated(lambda: kept.append(operator(*args)))
        rule = workspaces.RULES[operator.default](args, kept[-1])
    finally:
        torch.set_num_threads(before)
    assert needed == sum(each.nbytes for each in kept[-1] if each is not None) + rule


class Summing(nn.Module):
    """Layers that no network of mdnc has."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv1d(1, 8, 3), nn.MaxPool1d(2), nn.LayerNorm(7))

    def forward(self, x):
        y = self.inner(x)
        return torch.linalg.vector_norm(y.cumsum(2), dim=2).logsumexp(1)


def test_operators_that_were_not_measured_are_named():
    net = Summing()
    forecast = memory_forecast(net, (1, 16), 2)
    assert {'aten.cumsum', 'aten.logsumexp'} <= set(forecast.unmeasured)
    assert not {'aten.convolution', 'aten.relu', 'aten.view'} & set(forecast.unmeasured)
    assert str(forecast).endswith(f'workspaces that were not measured: {", ".join(forecast.unmeasured)}.')
    assert forecast.to_dict()['unmeasured'] == list(forecast.unmeasured)
    assert forecast.stages[0].unmeasured == ()
    with pytest.warns(UserWarning, match=r'max_batch: The peak leaves out .*aten.logsumexp'):
        mdnc.analysis.max_batch(net, (1, 16), 2**20)
    elsewhere = memory_forecast(net, (1, 16), 2, training=False)
    assert 'aten.logsumexp' in elsewhere.unmeasured


@pytest.mark.parametrize('word', ['sgd', 'momentum', 'adam', 'adamw', 'rmsprop'])
def test_where_the_optimizer_needs_most(word):
    makes = {
        'sgd': torch.optim.SGD,
        'momentum': lambda p: torch.optim.SGD(p, momentum=0.9),
        'adam': torch.optim.Adam,
        'adamw': torch.optim.AdamW,
        'rmsprop': torch.optim.RMSprop,
    }
    net, x = nn.Sequential(nn.Linear(400, 500), nn.ReLU(), nn.Linear(500, 3)), torch.randn(2, 400)
    forecast = memory_forecast(net, (400,), 2, optimizer=word)
    assert forecast.peak == pytest.approx(
        step_peak(net, x, makes[word](net.parameters())), rel=0.01 if MEASURED else 0.25
    )
    assert forecast.peak >= forecast.parameters + forecast.gradients + forecast.optimizer


def test_gradients_of_earlier_batches_and_buckets_of_other_processes_count():
    net, x = UNet2d(8, [1, 1]), torch.randn(2, 1, 24, 24)
    one, more = (memory_forecast(net, 24, 2, accumulate=number) for number in (1, 2))
    real = step_peak(net, x, torch.optim.AdamW(net.parameters()), earlier=True)
    assert UNDER * real <= more.peak <= OVER * real
    assert one.peak < more.peak <= one.peak + one.gradients
    assert memory_forecast(net, 24, 2, devices=2).peak == one.peak + one.gradients


def test_samples_of_a_size_add_alike():
    net = UNet3d(8, [1, 1])
    two, three, nine = (memory_forecast(net, 48, batch).peak for batch in (2, 3, 9))
    assert nine == pytest.approx(two + 7 * (three - two), rel=0.005)


def test_parts_peak_where_they_run():
    net = UNet2d(8, [1, 1])
    forecast = memory_forecast(net, 64, 2)
    assert [stage.name for stage in forecast.stages if stage.peak == forecast.peak] == ['conv_up_list.0']
    assert all(0 < stage.peak <= forecast.peak for stage in forecast.stages)


@pytest.mark.parametrize(
    ('arguments', 'error', 'text'),
    [
        ({'training': 1}, TypeError, 'training=1'),
        ({'loss': 3}, TypeError, 'loss=3'),
        ({'loss': lambda y: y}, TypeError, r'loss returns a tensor of shape \(1, 1, 13, 10\)'),
        ({'loss': lambda y: None}, TypeError, 'loss returns NoneType'),
        ({'accumulate': 0}, ValueError, 'accumulate=0'),
        ({'devices': 'two'}, TypeError, "devices='two'"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, error, text):
    with pytest.raises(error, match=text):
        memory_forecast(UNet2d(4, [1, 1]), (13, 10), **arguments)


def test_nothing_of_a_forecast_stays():
    net = UNet2d(4, [1, 1])
    net.eval()
    memory_forecast(net, 16, accumulate=2)
    memory_forecast(net, 16, training=False)
    assert not net.training
    assert all(parameter.grad is None for parameter in net.parameters())
