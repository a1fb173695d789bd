"""Data of other packages: what their parts are, and that no test part is a copy of a training part."""

import numpy as np
import pytest

from mdnc.training import MNI152, Photographs, TimeSeries

# Packages that carry the data warn of their own dependencies while they are imported.
pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning', 'ignore::UserWarning')


def whole(samples):
    return [samples.item(index, None) for index in range(len(samples))]


def test_photographs_are_in_one_part_each():
    data = Photographs()
    data.setup()
    parts = [[part.name(index) for index in range(len(part))] for part in (data.train, data.val, data.test)]
    assert all(parts)
    assert len({name for part in parts for name in part}) == sum(map(len, parts))


def test_the_head_is_tested_where_it_did_not_train():
    data = MNI152()
    data.setup()
    train, val, test = (whole(part)[0]['input'][0] for part in (data.train, data.val, data.test))
    assert train.shape[0] == val.shape[0] == test.shape[0] == 49  # one half of the mirror image that the template is
    assert train.shape[1] + val.shape[1] + test.shape[1] + 2 * 4 == 117
    tested = {plane.tobytes() for plane in np.moveaxis(test, 1, 0)}
    assert not tested & {plane.tobytes() for plane in np.moveaxis(train, 1, 0)}


def test_tecator_has_quantities():
    data = TimeSeries('tecator', split={'val': 0.0})
    data.setup()
    assert (len(data.train), len(data.test)) == (172, 43)
    target = data.test.item(0, None)['target']
    assert target.dtype == np.float32 and target.shape == () and 0 < target < 60
