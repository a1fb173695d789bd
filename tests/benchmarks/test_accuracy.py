"""The benchmark of accuracy: its figures, its baselines, and that it goes on where it was stopped."""

import numpy as np
import pytest

from benchmarks.accuracy import jobs as accuracy
from benchmarks.accuracy import results
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


def _sets(monkeypatch, found):
    each = Set('waves', _data, 95.0, 90.0, 'one of 1900')
    for module in (accuracy, results):
        monkeypatch.setattr(module, 'SETS', (each,))
        monkeypatch.setattr(module, 'NETWORKS', {'one': lambda data, quantity, seed, steps: found(data, seed)})
        monkeypatch.setattr(module, 'BASELINES', {'1-NN': BASELINES['1-NN']})
    return [each]


def _run(sets, seeds, path):
    for job in accuracy.jobs(sets, 'quick', seeds, path):
        results.add(path, accuracy.run(job, path))
    accuracy.average_all(sets, 'quick', seeds, path)
    return results.read(path)


def _right_but_of_seed_1(monkeypatch):
    return _sets(monkeypatch, lambda data, seed: np.eye(2)[data.test.targets ^ (seed == 1)])


def test_what_was_run_is_not_run_again(tmp_path, monkeypatch):
    sets, path = _right_but_of_seed_1(monkeypatch), tmp_path / 'accuracy.csv'
    assert [job.method for job in accuracy.jobs(sets, 'quick', [0, 1], path)] == ['1-NN', 'one', 'one']
    rows = _run(sets, [0, 1], path)
    assert [(row.seed, row.figure) for row in rows[1:]] == [('0', 100), ('1', 0), ('0-1', 50)]
    assert all(row.cpu and row.torch for row in rows)
    assert not list(accuracy.jobs(sets, 'quick', [0, 1], path))
    assert [job.seed for job in accuracy.jobs(sets, 'quick', [2, 3], path)] == [2, 3]


def test_an_average_over_more_seeds_uses_the_answers_that_are_kept(tmp_path, monkeypatch):
    sets, path = _right_but_of_seed_1(monkeypatch), tmp_path / 'accuracy.csv'
    _run(sets, [0, 1], path)
    wanted = list(accuracy.jobs(sets, 'quick', [0, 1, 2], path))
    assert [job.seed for job in wanted] == [2]
    rows = _run(sets, [0, 1, 2], path)
    assert [(row.seed, row.figure) for row in rows[-2:]] == [('2', 100), ('0-2', 100)]
    wanted[0].answers(path).unlink()
    assert not list(accuracy.jobs(sets, 'quick', [0, 1, 2], path))
    assert [job.seed for job in accuracy.jobs(sets, 'quick', [2, 3], path)] == [2, 3]


def test_the_page_shows_means_and_their_spread(tmp_path, monkeypatch):
    rows = _run(_right_but_of_seed_1(monkeypatch), [0, 1], tmp_path / 'accuracy.csv')
    page = tmp_path / 'accuracy.md'
    page.write_text(f'# Accuracy\n\n{results.BEGIN}\nold\n{results.END}\n\nMore.\n')
    results.put(page, rows)
    text = page.read_text()
    nearest = rows[0].figure
    assert f'| waves | {nearest:.1f} | 50.0 ± 50.0 | 50.0 | 95.0 | 90.0 | one of 1900 |' in text
    assert f'**{nearest:.1f}** | **50.0** | **50.0** | **95.0** | **90.0** |' in text
    assert text.startswith('# Accuracy') and text.endswith('More.\n') and 'old' not in text
    assert 'once more' not in text


def test_the_page_shows_what_other_seeds_give(tmp_path, monkeypatch):
    sets, path = _right_but_of_seed_1(monkeypatch), tmp_path / 'accuracy.csv'
    for seeds in ([0, 1], [0], [1, 2], [2, 3]):  # groups that share a seed with an earlier one are none of their own
        rows = _run(sets, seeds, path)
    lines = results.again(rows).splitlines()
    assert lines[0] == '| set | one, seeds 0-1 | one, seeds 2-3 |'
    assert lines[2:] == [
        '| waves | 50.0 ± 50.0 | 100.0 ± 0.0 |',
        '| mean of 1 with published figures | **50.0** | **100.0** |',
    ]
    page = tmp_path / 'accuracy.md'
    page.write_text(f'{results.BEGIN}\n{results.END}\n')
    results.put(page, rows)
    assert results.again(rows) in page.read_text()


def test_the_page_shows_the_averages_over_the_most_runs(tmp_path, monkeypatch):
    sets, path = _right_but_of_seed_1(monkeypatch), tmp_path / 'accuracy.csv'
    for seeds in ([0], [0, 1], [2, 3], [1, 2, 3]):
        rows = _run(sets, seeds, path)
    assert '| 75.0 ± 43.3 | 100.0 | 95.0 |' in results.table(rows)


def test_the_page_of_the_documentation_is_that_of_the_results():
    rows = results.read(results.RESULTS)
    assert {row.set for row in rows} == {each.name for each in results.SETS}
    page = results.PAGE.read_text(encoding='utf-8')
    for form in {row.form for row in rows}:
        assert results.table(row for row in rows if row.form == form) in page
