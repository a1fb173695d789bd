"""The baselines of recipes are measured on the samples that the recipes are tested on."""

import numpy as np
import pytest

from benchmarks import recipes
from mdnc.training import Digits

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning', 'ignore::UserWarning')


def test_the_test_part_is_that_of_the_recipe():
    data = Digits(split={'val': 0.1, 'test': 0.2})
    data.setup()
    train, test = recipes.parts('digits')
    assert len(train.inputs) == len(data.train) + len(data.val)
    assert len(test.inputs) == len(data.test)
    for number, (image, digit) in enumerate(zip(test.inputs, test.targets, strict=True)):
        item = data.test.item(number, None)
        assert digit == item['target']
        np.testing.assert_array_equal(image, item['input'])


def test_all_recipes_have_baselines():
    assert {*recipes.METHODS} == {path.stem for path in (recipes.ROOT / 'recipes').glob('*.yaml')}
