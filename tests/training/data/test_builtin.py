"""Data of other packages: what their parts are, and that no test part is a copy of a training part."""

import numpy as np
import pytest

from mdnc.training import MNI152, Mosaics, Photographs, TimeSeries

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


def test_mosaics_have_what_was_measured_and_what_is_interpolated_between():
    data = Mosaics()
    data.setup()
    (sample,) = whole(data.test)
    given, target = sample['input'], sample['target']
    assert given.shape == (6, 400, 600)
    assert target.shape == (3, 400, 600)
    for channel, row, column in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        places = np.s_[channel, row::2, column::2]
        assert np.array_equal(given[places], target[places])
        assert np.array_equal(given[3:][places], target[places])
    assert np.count_nonzero(given[3:], axis=0).max() == 1  # one colour at each position
    assert given[0, 2, 3] == pytest.approx((target[0, 2, 2] + target[0, 2, 4]) / 2)
    assert given[0, 3, 3] == pytest.approx(target[0, 2:5:2, 2:5:2].mean())
    assert given[1, 2, 2] == pytest.approx((target[1, 1, 2] + target[1, 3, 2] + target[1, 2, 1] + target[1, 2, 3]) / 4)
