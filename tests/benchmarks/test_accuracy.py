"""The benchmark of accuracy: its figures, its baselines, and that it goes on where it was stopped."""

import numpy as np
import pytest

from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy.methods import BASELINES, averaged, figure
from benchmarks.accuracy.sets import Data, Part, Set


def _waves(count, seed):
    """Signals of two frequencies, in noise, of lengths that differ."""
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    lengths = rng.integers(48, 65, count)
    signals = [
        np.sin(np.linspace(0, (9 + 9 * kind) * length / 64, length) + rng.uniform(0, 6))
        for kind, length in zip(targets, lengths, strict=True)
    ]
    return Part([(each + rng.normal(0, 0.1, len(each)))[None].astype(np.float32) for each in signals], targets)


def _data():
    return Data(_waves(24, 0), _waves(16, 1))


def test_figures():
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    assert figure(scores, Part([], np.array([0, 1, 0, 0])), quantity=False) == 75
    assert figure(np.array([[1.0], [2.0]]), Part([], np.array([1.0, 5.0])), quantity=True) == pytest.approx(4.5**0.5)
    assert averaged([scores, 1 - scores]).tolist() == [[0.5, 0.5]] * 4


@pytest.mark.parametrize('name', BASELINES)
def test_baselines_learn(name):
    data = _data()
    right = figure(BASELINES[name](data, False, 0), data.test, False)
    assert right >= (90 if name == 'ROCKET-like' else 60)


def test_random_kernels_repeat():
    data = _data()
    one, two = (BASELINES['ROCKET-like'](data, False, 3) for _ in range(2))
    assert np.array_equal(one, two)


def test_what_was_run_is_not_run_again(tmp_path, monkeypatch):
    calls = []

    def network(data, quantity, seed, steps):
        calls.append(seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return np.eye(2)[data.test.targets]

    monkeypatch.setattr(accuracy, 'NETWORKS', {'one': network})
    monkeypatch.setattr(accuracy, 'BASELINES', {})
    each, path = Set('waves', _data), tmp_path / 'accuracy.csv'
    with pytest.raises(KeyboardInterrupt):
        accuracy.run(each, 'quick', accuracy.known(path), path)
    accuracy.run(each, 'quick', accuracy.known(path), path)
    accuracy.run(each, 'quick', accuracy.known(path), path)
    rows = accuracy.known(path)
    assert [key[3] for key in rows] == ['0', '1', 'all']
    assert all(row['figure'] == '100.0' for row in rows.values())
    assert len(calls) == 4, 'the first seed, the broken one, then both for the average'
    monkeypatch.setattr(accuracy, 'SETS', (each,))
    assert '| waves | 100.0 ± 0.0 | 100.0 |' in accuracy.table('quick', rows)
