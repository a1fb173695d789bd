"""Real steps of plans: their memory against the forecast, their time against the hours."""

import numpy as np
import pytest

from mdnc.planning import Budget, Fingerprint, Target, plan
from mdnc.planning.planner import planned
from mdnc.planning.reading import read_fingerprint
from mdnc.training import ArrayData
from tests.kernels import MEASURED, OVER, UNDER

GIB = 2**30
SIGNALS = Fingerprint(1, 200, 2, (256,), target=Target('classes', 3, counts=[70, 70, 60]))
MAPS = Fingerprint(2, 40, 1, (48, 40), target=Target('class map', 3))


@pytest.mark.parametrize('data', [SIGNALS, MAPS])
def test_a_real_step_takes_what_was_forecast(data):
    check = plan(data, Budget(memory=GIB, device='cpu'), check=True).measured['check']
    assert abs(check['error']) < (0.12 if MEASURED else 0.3) and 0 < check['prediction'] < check['measured']
    assert 1 - OVER < check['prediction_error'] < 1 - UNDER


@pytest.mark.parametrize(('memory', 'result'), [(16 * 2**20, 'device'), (5 * 2**20, 'host')])
def test_a_real_prediction_in_tiles_takes_what_was_forecast(memory, result):
    data = Fingerprint(2, 40, 1, (200, 200), most=(300, 250), least=(150, 150), target=Target('class map', 12))
    made = plan(data, Budget(memory=memory, device='cpu'), check=True)
    told = made.forecast['prediction']['largest']
    assert told['result'] == result and told['bytes'] <= memory
    assert made.words.get('data.tiles', 1) == told['tiles']
    assert any('in slabs' in note for note in made.notes) == (result == 'host')
    assert 1 - OVER < made.measured['check']['prediction_error'] < 1 - UNDER


def test_over_the_budget_the_next_smaller_plan_is_taken_and_said(monkeypatch):
    from mdnc.planning import budget_search

    true = budget_search.training_bytes
    monkeypatch.setattr(budget_search, 'training_bytes', lambda *given: int(0.6 * true(*given)))
    budget = Budget(memory=24 * 2**20, device='cpu')
    naive = planned(MAPS, budget, {})
    made = plan(MAPS, budget, check=True)
    assert made.measured['check']['measured'] <= budget.bytes
    assert made.forecast['bytes'] < naive.forecast['bytes']
    assert any('next smaller plan' in note for note in made.notes)


def test_epochs_fill_the_hours():
    made = plan(SIGNALS, Budget(memory=GIB, device='cpu', hours=0.02), dry=False)
    assert made.measured['step_seconds'] > 0
    assert made.measured['hours'] <= 0.0225 or made.words['trainer.max_epochs'] == 1


def test_one_spacing_is_planned_where_samples_differ_in_it():
    apart = {'min': [1.0, 0.5, 0.5], 'p10': [2.0, 0.5, 0.5], 'max': [8.0, 0.5, 0.5]}
    data = Fingerprint(3, 40, 1, (30, 128, 128), spacing=(4.0, 0.5, 0.5), spacings=apart, target=Target('class map', 2))
    made = planned(data, Budget(memory=4 * GIB, device='cpu'), {})
    assert made.words['data.spacing'] == [2.0, 0.5, 0.5]
    assert made.forecast['window'][0] <= 60 and made.fingerprint == data


def test_numbers_that_stand_for_classes_are_found_in_targets():
    labels = np.random.default_rng(0).choice([1, 2], 40)
    data = ArrayData(np.zeros((40, 1, 16), np.float32), labels)
    target = read_fingerprint(data.pairs(), None, None, None).target
    assert (target.outputs, target.codes, sum(target.counts)) == (2, [1, 2], 40)
