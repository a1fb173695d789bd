"""The peak that is forecast of a prediction is the most that torch's allocator holds in a real one, within 5 %."""

import pytest
import torch

import mdnc
from mdnc.analysis import PredictionForecast, memory_forecast, prediction_forecast
from mdnc.analysis.allocated import allocated
from mdnc.checkpoints import Answer
from mdnc.modules.resnet import AE1d, EncoderNet2d, UNet1d, UNet2d, UNet3d
from tests.kernels import OVER, UNDER

NETS = {
    'UNet1d': (lambda: UNet1d(8, [1, 1], in_planes=2), (3000,), (200,)),
    'AE1d': (lambda: AE1d(8, [1, 1]), (2000,), (256,)),
    'UNet2d': (lambda: UNet2d(8, [1, 1], out_planes=5), (150, 130), (40, 48)),
    'UNet2d, a lone row': (lambda: UNet2d(8, [1, 1], out_planes=5), (40, 130), (40, 48)),
    'UNet2d, padded': (lambda: UNet2d(8, [1, 1], out_planes=5), (150, 30), (40, 48)),
    'UNet2d, one tile': (lambda: UNet2d(8, [1, 1], out_planes=5), (40, 48), (40, 48)),
    'UNet2d, hardly a network': (lambda: UNet2d(2, [1, 1], out_planes=12), (400, 200), (24, 24)),
    'UNet3d': (lambda: UNet3d(4, [1, 1], in_planes=2, out_planes=3), (40, 30, 36), (16, 16, 12)),
}


def data_of(tile, at_once, answer='scores', scaled=False):
    unit = {'mean': [0.0], 'std': [1.0]} if scaled else None
    facts = {'answer': {'output': answer, 'dense': True}, 'patch': tile, 'overlap': 0.25, 'tiles': at_once}
    return facts | {'normalisation': unit, 'target_normalisation': unit}


def real_peak(net, x, data, slabs=False):
    """The most bytes that a prediction holds, parameters, buffers and the sample among them."""
    answer = Answer(net.eval(), data)

    def run():
        if not slabs:
            return answer.predict(x)
        with torch.no_grad():
            for _, part in answer.steps.slabs(net, x):
                part.numpy()

    run()
    return sum(each.nbytes for each in (*net.parameters(), *net.buffers(), x)) + allocated(run)


def sample(net, size, batch=1):
    return torch.randn(batch, net.plan.in_planes, *size)


@pytest.mark.parametrize('slabs', [False, True])
@pytest.mark.parametrize('at_once', [1, 3])
@pytest.mark.parametrize('case', NETS)
def test_the_peak_in_tiles_is_that_of_a_real_prediction(case, at_once, slabs):
    make, size, tile = NETS[case]
    net = make()
    forecast = prediction_forecast(net, size, tile, at_once, result='host' if slabs else 'device')
    real = real_peak(net, sample(net, size), data_of(tile, at_once), slabs)
    assert UNDER * real <= forecast.device <= OVER * real


@pytest.mark.parametrize('answer', ['values', 'probabilities', 'classes', 'shares'])
@pytest.mark.parametrize(('tile', 'slabs'), [(None, False), ((40, 48), False), ((40, 48), True)])
def test_what_is_made_of_the_scores_counts(answer, tile, slabs):
    net = UNet2d(4, [1, 1], out_planes=12)
    result = 'host' if slabs else 'device'
    forecast = prediction_forecast(net, (190, 100), tile, 2 if tile else 1, answer=answer, scaled=True, result=result)
    real = real_peak(net, sample(net, (190, 100)), data_of(tile, 2, answer, scaled=True), slabs)
    assert UNDER * real <= forecast.device <= OVER * real


@pytest.mark.parametrize(
    ('make', 'size'), [(lambda: UNet1d(8, [1, 1]), (900,)), (lambda: EncoderNet2d(8, [1, 1], out_length=3), (40, 33))]
)
def test_a_whole_sample_takes_what_the_network_takes(make, size):
    net = make()
    forecast = prediction_forecast(net, size, batch_size=2)
    real = real_peak(net, sample(net, size, 2), data_of(None, 1) | {'answer': {'output': 'scores', 'dense': False}})
    assert UNDER * real <= forecast.device <= OVER * real
    assert forecast.device == memory_forecast(net, size, 2, training=False).peak
    assert forecast.device == forecast.parameters + forecast.sample + forecast.network


@pytest.mark.parametrize('way', ['optimized', 'autocast', 'bfloat16'])
def test_other_precisions_and_kernels(way):
    net = UNet2d(8, [1, 1], out_planes=5)
    net = mdnc.optimize(net) if way == 'optimized' else net.bfloat16() if way == 'bfloat16' else net
    x = sample(net, (150, 130)).to(next(net.parameters()).dtype)
    with torch.autocast('cpu', torch.bfloat16, enabled=way == 'autocast'):
        forecast = prediction_forecast(net, (150, 130), (40, 48), 2)
        real = real_peak(net, x, data_of((40, 48), 2))
    assert UNDER * real <= forecast.device <= OVER * real


def test_several_samples_in_tiles():
    net = UNet2d(8, [1, 1], out_planes=5)
    forecast = prediction_forecast(net, (90, 80), (40, 48), 2, samples=3)
    real = real_peak(net, sample(net, (90, 80), 3), data_of((40, 48), 2))
    assert UNDER * real <= forecast.device <= OVER * real


def test_what_lies_where():
    net = UNet2d(4, [1, 1], out_planes=3)
    whole, slabs = (prediction_forecast(net, 256, 32, result=result) for result in ('device', 'host'))
    assert whole.sample == whole.host == 4 * 256**2
    assert whole.answer == 3 * 4 * 256**2
    assert slabs.answer == 3 * 4 * 32 * 256
    assert slabs.host == slabs.sample + slabs.answer
    assert slabs.device < whole.device
    assert prediction_forecast(net, 256, 32, answer='classes').answer == 256**2
    assert prediction_forecast(net, 256, result='host').host == 4 * 4 * 256**2


def test_the_number_of_rows_changes_nothing_but_what_is_held_whole():
    net = UNet1d(4, [1, 1])
    five, many = (prediction_forecast(net, size, 64, result='host') for size in (64 + 4 * 48, 64 + 100_000 * 48))
    assert many.device - five.device == many.sample - five.sample


def test_figures_are_read_as_a_table_and_as_plain_values():
    forecast = PredictionForecast(2048, 1024, 1, 2, 3, 4)
    assert '2.00 KiB' in str(forecast)
    assert PredictionForecast(**forecast.to_dict()) == forecast


@pytest.mark.parametrize(
    ('arguments', 'error', 'text'),
    [
        ({'tile': (8, 8, 8)}, ValueError, r'tile=\(8, 8, 8\)'),
        ({'tile': 0}, ValueError, 'tile=0'),
        ({'tile': 8, 'batch_size': 0}, ValueError, 'batch_size=0'),
        ({'overlap': 1}, ValueError, 'overlap=1'),
        ({'overlap': 'half'}, TypeError, "overlap='half'"),
        ({'blend': 'flat'}, ValueError, "blend='flat'"),
        ({'answer': 'labels'}, ValueError, "answer='labels'"),
        ({'scaled': 1}, TypeError, 'scaled=1'),
        ({'samples': 0}, ValueError, 'samples=0'),
        ({'result': 'disk'}, ValueError, "result='disk'"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, error, text):
    with pytest.raises(error, match=f'prediction_forecast: {text}'):
        prediction_forecast(UNet2d(4, [1, 1]), (33, 20), **arguments)


def test_a_network_that_gives_no_map_has_no_tiles():
    with pytest.raises(ValueError, match='gave'):
        prediction_forecast(EncoderNet2d(4, [1, 1]), 64, tile=32)


def test_nothing_of_a_forecast_stays():
    net = UNet2d(4, [1, 1])
    prediction_forecast(net, 64, 16)
    assert net.training
