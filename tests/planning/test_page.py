"""The page of a plan, and the pictures on it."""

import json
import re

import numpy as np
import pytest

from mdnc.planning import Fingerprint, Target, plan
from mdnc.planning.page import page_of, write_page
from mdnc.training import ArrayData

GIB = 2**30
RNG = np.random.default_rng(0)


def _signals():
    return ArrayData(RNG.normal(size=(30, 2, 64)).astype(np.float32), np.array(['<up>', 'down'] * 15))


def _images():
    labels = np.zeros((20, 24, 32), np.int64)
    labels[:, 4:12, 4:12] = 1
    return ArrayData(RNG.normal(size=(20, 1, 24, 32)).astype(np.float32), labels)


def _volumes():
    return ArrayData(RNG.normal(size=(8, 1, 12, 16, 16)).astype(np.float32))


@pytest.mark.parametrize(
    ('make', 'mark'), [(_signals, '<polyline'), (_images, 'alt="target"'), (_volumes, 'alt="input"')]
)
def test_a_page_shows_samples_of_every_order_and_fetches_nothing(make, mark, tmp_path):
    made = plan(make(), GIB)
    page = write_page(made, tmp_path / 'plan.yaml').read_text()
    assert mark in page and len(made.examples) == 3
    assert not re.search(r'(src|href)="(?!data:)', page) and 'http' not in page.replace('http-equiv', '')
    assert 'examples' not in json.dumps(made.to_dict())


def test_names_from_data_are_escaped():
    page = page_of(plan(_signals(), GIB))
    assert '&lt;up&gt;' in page and '<up>' not in page


def test_a_page_says_every_choice_with_what_bound_it_and_what_to_look_at():
    faults = [{'kind': 'duplicate', 'count': 3, 'text': 'a holds what b holds'}]
    data = Fingerprint(1, 400, 1, (90,), target=Target('classes', 20, counts=[20] * 20), faults=faults)
    made = plan(data, GIB)
    page = page_of(made)
    assert 'duplicate: a holds what b holds (and 2 more)' in page
    assert all(choice.because for choice in made.choices)
    assert 'not timed (--dry)' in page and page.count('class="choice"') == len(made.choices)
