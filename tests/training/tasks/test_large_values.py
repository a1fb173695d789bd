"""Figures of very large and very small quantities, whose squares are beyond single precision."""

import warnings

import numpy as np
import pytest
import torch
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassF1Score
from torchmetrics.regression import R2Score

import mdnc
from mdnc.modules._standardization import sample_figures
from mdnc.training import ArrayData, NetRegressor, Regression, train
from mdnc.training.seed import take_up_metrics
from mdnc.training.tasks.metrics import KnownError, widened

RNG = np.random.default_rng(0)
UNITS = [1e-30, 1.0, 1e30]
NET = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_length': 2}}


@pytest.mark.parametrize('unit', UNITS)
@pytest.mark.parametrize(('squared', 'quantities'), [(True, None), (True, 2), (False, None), (False, 2)])
def test_errors_are_those_of_double_precision_in_any_unit(unit, squared, quantities):
    predicted, truth = (torch.tensor(RNG.normal(size=(6, 2, 5, 3)) * unit, dtype=torch.float32) for _ in range(2))
    known = torch.tensor(RNG.random(predicted.shape) < 0.7)
    error = KnownError(quantities, squared)
    for rows in (slice(0, 2), slice(2, 6)):
        error.update(predicted[rows], truth[rows], known[rows])
    off = np.where(known, predicted.double() - truth.double(), np.nan)
    axes = (0, 2, 3) if quantities else None
    due = np.sqrt(np.nanmean(off**2, axes)) if squared else np.nanmean(np.abs(off), axes)
    np.testing.assert_allclose(error.compute(), due, rtol=1e-12)


def test_errors_of_large_maps_are_summed_in_pieces(monkeypatch):
    predicted = torch.tensor(RNG.normal(size=(2, 3, 50)))
    whole, pieces = KnownError(3), KnownError(3)
    whole.update(predicted, torch.zeros(2, 3, 50))
    monkeypatch.setattr('mdnc.training.tasks.metrics._PIECE', 40)
    pieces.update(predicted, torch.zeros(2, 3, 50))
    torch.testing.assert_close(pieces.compute(), whole.compute(), rtol=1e-12, atol=0)


@pytest.mark.parametrize('metric', [MeanSquaredError(num_outputs=2), R2Score(multioutput='raw_values')])
def test_metrics_of_torchmetrics_are_summed_in_double_precision_too(metric):
    task = Regression(NET, metrics={'own': metric})
    task.learn({'target_normalisation': {'mean': [1e25, 2e4], 'std': [1e25, 1.0]}})
    output = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    truth = task.predicted(output + 0.5 * torch.randn(50, 2, generator=torch.Generator().manual_seed(1)))
    task._count('val', output, torch.zeros(50), {'input': torch.zeros(50, 1, 8), 'target': truth})
    off, spread = (task.predicted(output).double() - truth.double()), truth.double() - truth.double().mean(0)
    due = (off**2).mean(0) if isinstance(metric, MeanSquaredError) else 1 - (off**2).sum(0) / (spread**2).sum(0)
    np.testing.assert_allclose(task.val_metrics['own'].compute(), due, rtol=1e-6)


def test_metrics_that_are_none_of_quantities_stay_as_they_are():
    assert widened(MulticlassF1Score(3)).tp.dtype == torch.int64
    kept = Regression(NET).val_metrics['loss'].metric_state
    assert {state.dtype for state in kept.values()} == {torch.float64}


@pytest.mark.parametrize('unit', [1e-30, 1e30])
def test_a_run_in_other_units_gives_the_same_figures_in_these(unit):
    x, y = RNG.normal(size=(60, 1, 32)), RNG.normal(3, 1, (60, 2))
    found = [
        train('EncoderNet', (x, y * factor), epochs=1, batch_size=20, channel=4, layers=[1, 1]).figures
        for factor in (1.0, unit)
    ]
    for name, value in found[0].items():
        factor = 1 if name == 'test/loss' else unit
        assert found[1][name] == pytest.approx(value * factor, rel=1e-3), name


@pytest.mark.parametrize('unit', [1e-25, 1e-12, 1e20, 1e30])
def test_samples_in_other_units_are_normalised_by_themselves_alike(unit):
    x = torch.randn(3, 2, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    torch.testing.assert_close(sample_figures((x * unit).float()) / unit, sample_figures(x.float()), rtol=1e-5, atol=0)
    data = {'normalisation': {'by': 'sample'}, 'answer': {'output': 'probabilities'}}
    net = mdnc.modules.resnet.EncoderNet1d(4, [1, 1], in_planes=2, out_length=3)
    answers = [mdnc.checkpoints.Answer(net, data).predict((x * factor).float()) for factor in (1, unit)]
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-3, atol=1e-5)


def test_constant_channels_and_quantities_of_an_estimator_are_not_blown_up():
    x = np.concatenate([RNG.normal(size=(12, 1, 16)), np.full((12, 1, 16), 0.1)], 1)
    model = NetRegressor(epochs=1, random_state=0).fit(x, np.full(12, 0.1))
    assert model.predictor_.facts['normalisation']['std'][1] == 1
    assert model.predictor_.facts['target_normalisation']['std'] == [1]
    np.testing.assert_allclose(model.predict(x), 0.1, atol=2)


@pytest.mark.parametrize(('name', 'x', 'y'), [('X', 1e300, 1.0), ('y', 1.0, 1e39)])
def test_estimators_refuse_what_single_precision_does_not_hold(name, x, y):
    given = RNG.normal(size=(8, 16))
    with pytest.raises(ValueError, match=f'NetRegressor: {name} holds values beyond single precision'):
        NetRegressor(epochs=1).fit(given * x, given[:, 0] * y)


@pytest.mark.parametrize('former', ['sum_squared_error', 'squares'])
def test_figures_of_an_epoch_that_an_older_version_began_are_taken_up(former):
    fresh = KnownError()
    count = 'total' if former == 'sum_squared_error' else 'counts'
    take_up_metrics({'rmse': fresh}, {'rmse': {former: torch.tensor(8.0), count: torch.tensor(1)}}, [], 0, 1)
    fresh.update(torch.zeros(1, 1), torch.zeros(1, 1))
    assert float(fresh.compute()) == pytest.approx(2.0)


@pytest.mark.parametrize(('offset', 'warned'), [(1e6, True), (1e3, False), (0.0, False)])
def test_digits_that_single_precision_loses_are_warned_of(offset, warned):
    x = RNG.normal(0, 0.01, (12, 1, 16)) + offset
    data = ArrayData(x, np.arange(12) % 2, split={'val': 0, 'test': 0})
    data.setup()
    own = ArrayData(np.zeros((12, 1, 16)), x[:, 0, 0], split={'val': 0, 'test': 0})
    own.setup()
    for read in (
        lambda: data.facts,
        lambda: own.target_normalisation,
        lambda: NetRegressor(epochs=1).fit(x, np.arange(12.0)),
        lambda: NetRegressor(epochs=1).fit(x - offset, x[:, 0, 0]),
    ):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            read()
        found = [str(each.message) for each in seen if 'single precision hardly tells them apart' in str(each.message)]
        assert len(found) == warned


def test_constants_are_no_lost_digits():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        NetRegressor(epochs=1).fit(np.full((12, 16), 0.1), np.arange(12.0))
