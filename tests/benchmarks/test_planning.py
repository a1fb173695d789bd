"""Rows of made fingerprints: what the page says of them."""

import csv

from benchmarks.planning.__main__ import RESULTS
from benchmarks.planning.made import CASES, KNOWN


def _rows(name):
    with (RESULTS / name).open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_every_fingerprint_has_a_row_within_its_budget():
    rows = _rows('planning.csv')
    assert len(rows) >= 60 and [row['data'] for row in rows] == [case.name for case in CASES]
    assert all(float(row['share']) <= 1 and float(row['planning_seconds']) < 20 for row in rows)


def test_forecasts_were_met_by_real_steps():
    errors = [float(row['real_step_error']) for row in _rows('planning.csv') if row['real_step_error']]
    assert len(errors) >= 8 and max(map(abs, errors)) < 1e-6


def test_each_data_set_that_plans_are_known_for_has_a_row():
    assert [row['data'] for row in _rows('planning-nnunet.csv')] == [known.case.name for known in KNOWN]
