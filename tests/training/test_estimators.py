"""Networks in scikit-learn: its own checks, its tools, and samples that it knows nothing of."""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import mdnc.training
from mdnc.modules._standardization import normalised_by
from mdnc.training import NetClassifier, NetRegressor

RNG = np.random.default_rng(0)
NAMES = np.repeat(['slow', 'fast'], 24)
X = np.sin(np.linspace(0, 6, 32) * np.repeat([2, 5], 24)[:, None] + RNG.uniform(0, 6, (48, 1)))
UNEQUAL = [each[: 20 + n % 12] for n, each in enumerate(X)]
SMALL = {'name': 'EncoderNet', 'arguments': {'channel': 4, 'layers': [1, 1], 'small': 'keep'}}


@pytest.mark.slow
@parametrize_with_checks([NetClassifier(epochs=20, random_state=0), NetRegressor(epochs=20, random_state=0)])
def test_what_scikit_learn_asks_of_estimators(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ('samples', 'order'),
    [
        (X, None),
        (X[:, None], None),
        (UNEQUAL, None),
        ([each[None] for each in UNEQUAL], None),
        (np.array(UNEQUAL, dtype=object), None),
        (X.reshape(48, 1, 4, 8), None),
        (X.reshape(48, 4, 8), 2),
        (X.reshape(48, 1, 2, 4, 4), None),
        (torch.from_numpy(X).float(), None),
        ([each.reshape(1, 4, 8)[:, : 3 + n % 2] for n, each in enumerate(X)], None),
    ],
)
def test_samples_of_all_kinds(samples, order):
    model = NetClassifier(SMALL, epochs=2, order=order, random_state=0).fit(samples, NAMES)
    shares = model.predict_proba(samples)
    assert shares.shape == (48, 2)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert set(model.predict(samples)) <= {'slow', 'fast'}
    assert list(model.classes_) == ['fast', 'slow']
    assert model.transform(samples).shape == (48, len(model.get_feature_names_out()))
    # Nobody's answer hangs on who is asked with him.
    np.testing.assert_allclose(model.predict_proba(samples[5:6]), shares[5:6], rtol=1e-7)


def test_in_the_tools_of_scikit_learn(capfd):
    model = make_pipeline(StandardScaler(), NetClassifier(epochs=15, batch_size=8, random_state=0))
    assert cross_val_score(model, X, NAMES, cv=2).mean() > 0.9
    search = GridSearchCV(NetClassifier(batch_size=8, random_state=0), {'epochs': [1, 8]}, cv=2).fit(UNEQUAL, NAMES)
    assert search.best_params_ == {'epochs': 8}
    assert search.score(UNEQUAL, NAMES) > 0.8
    assert ''.join(capfd.readouterr()) == ''


def test_repeats_pickles_clones_and_is_fitted_again():
    before = torch.get_rng_state()
    model = NetClassifier(SMALL, epochs=2, random_state=1).fit(X, NAMES)
    assert torch.equal(before, torch.get_rng_state())
    expected = model.predict_proba(X)
    for other in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        clone(model).fit(X, NAMES),
        model.fit(X, NAMES),
    ):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
    assert not np.array_equal(clone(model).set_params(random_state=2).fit(X, NAMES).predict_proba(X), expected)
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    assert model.fit(X[:, None, :16], NAMES == 'slow').predict(X[:, None, :16]).dtype == bool


def test_one_answer_with_the_predictor():
    model = NetRegressor(SMALL, epochs=2, random_state=0).fit(X, np.stack([X.std(1), X.mean(1)], 1))
    assert model.predict(X).shape == (48, 2)
    np.testing.assert_allclose(model.predictor_(X), model.predict(X), rtol=1e-4, atol=1e-6)
    assert NetRegressor(SMALL, epochs=1).fit(X, X.std(1)).predict(X).shape == (48,)


def test_a_module_is_copied():
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
    start = net[1].weight.clone()
    model = NetClassifier(net, epochs=2, random_state=0).fit(X, NAMES)
    assert torch.equal(start, net[1].weight)
    assert model.predictor_.network is not net
    np.testing.assert_allclose(model.transform(X).std(), 1, rtol=1e-5)  # what the layer reads: standard units


@pytest.mark.parametrize(
    ('kind', 'options', 'samples', 'targets', 'text'),
    [
        (NetClassifier, {}, X, np.repeat('a', 48), 'only one class'),
        (NetClassifier, {}, UNEQUAL, NAMES[:-1], 'inconsistent numbers of samples'),
        (NetClassifier, {'epochs': 0}, X, NAMES, 'NetClassifier: epochs=0'),
        (NetClassifier, {'device': 'fast'}, X, NAMES, "NetClassifier: device='fast'"),
        (NetRegressor, {'order': 4}, X, X[:, 0], 'order=4'),
        (NetRegressor, {'order': 2}, X, X[:, 0], 'for order=2'),
        (NetRegressor, {}, [*UNEQUAL[:-1], np.full(8, np.nan)], X[:, 0], r'X\[47\] contains NaN'),
        (NetRegressor, {}, [*UNEQUAL[:-1], np.zeros((2, 9))], X[:, 0], r'differ in \(channels, axes\)'),
        (NetRegressor, {}, X, None, 'requires y to be passed'),
        (NetRegressor, {'network': 'EncoderNot'}, X, X[:, 0], 'unknown network'),
    ],
)
def test_what_is_wrong_is_said(kind, options, samples, targets, text):
    with pytest.raises(ValueError, match=text):
        kind(**options).fit(samples, targets)


def test_other_samples_than_in_fit_are_refused():
    model = NetClassifier(SMALL, epochs=1).fit(UNEQUAL, NAMES)
    with pytest.raises(ValueError, match='X has 2 features, but NetClassifier is expecting 1 features'):
        model.predict([np.zeros((2, 9)), np.zeros((2, 8))])


def test_what_lacks_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, 'mdnc.training.estimators')
    for name in [name for name in sys.modules if name.partition('.')[0] == 'sklearn']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'sklearn', None)
    with pytest.raises(ImportError, match=r"sklearn.* is not installed.*pip install 'mdnc\[sklearn\]'"):
        mdnc.training.NetClassifier  # noqa: B018


LOUD = X * np.random.default_rng(1).permutation(np.logspace(-3, 3, 48))[:, None]


@pytest.mark.parametrize('by', [True, 'set'])
def test_one_scale_for_samples_of_all_amplitudes_is_warned_of(by):
    for kind, y in ((NetClassifier, NAMES), (NetRegressor, X[:, 0])):
        text = f'^{kind.__name__}: normalise=true, but samples of channel 0 differ in amplitude by orders of magnitude'
        with pytest.warns(UserWarning, match=text):
            kind(SMALL, epochs=1, normalise=by, random_state=0).fit(LOUD, y)
        kind(SMALL, epochs=1, normalise=by).fit(X, y)
        kind(epochs=1, normalise=by).fit(LOUD, y)  # the network of None reads the amplitude


def test_a_regression_keeps_the_amplitude_that_its_target_depends_on():
    logs = np.log10(LOUD.std(1))
    even = np.arange(48) % 2 == 0
    model = NetRegressor(epochs=20, random_state=0).fit(LOUD[even], logs[even])
    assert model.score(LOUD[~even], logs[~even]) > 0.7
    assert normalised_by(model.predictor_.facts['normalisation']) == 'set'
    lost = NetRegressor(epochs=20, normalise='sample', random_state=0).fit(LOUD[even], logs[even])
    assert lost.score(LOUD[~even], logs[~even]) < 0.3
    with pytest.warns(
        UserWarning, match=r'^NetRegressor: normalise=auto: .*, but the targets depend on it .*amplitude=True'
    ):
        NetRegressor(SMALL, epochs=1).fit(LOUD, logs)
    for other in (np.random.default_rng(0).normal(size=48), X[:, 0]):
        model = NetRegressor(SMALL, epochs=1).fit(LOUD, other)
        assert model.predictor_.facts['normalisation'] == {'by': 'sample'}


def test_columns_of_a_table_are_warned_of():
    wine = load_wine()
    some = slice(None, None, 6)
    model = NetClassifier(epochs=1, random_state=0)
    with pytest.warns(UserWarning, match='NetClassifier: half of the positions of channel 0 .* StandardScaler'):
        model.fit(wine.data[some], wine.target[some])
    make_pipeline(StandardScaler(), model).fit(wine.data[some], wine.target[some])  # warnings are errors here
