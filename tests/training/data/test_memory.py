"""What may be given from Python: arrays of NumPy and torch, tables of pandas, lists."""

import numpy as np
import pandas as pd
import pytest
import torch
from tests.training.data.folders import opened

from mdnc.training.data import DataError
from mdnc.training.data.sources import open_reader

X = np.arange(4.0, dtype=np.float32)[:, None, None] * np.ones((1, 1, 8), np.float32)


def objects(*items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


@pytest.mark.parametrize(
    'inputs',
    [
        torch.tensor(X),
        torch.tensor(X, requires_grad=True),
        torch.tensor(X).bfloat16(),
        list(X),
        [torch.tensor(x) for x in X],
        X.tolist(),
        objects(*X),
        X.astype(np.float16),
    ],
    ids=['tensor', 'grad', 'bfloat16', 'arrays', 'tensors', 'lists', 'objects', 'half'],
)
def test_arrays_of_any_make_are_the_same(inputs):
    data = opened(inputs)
    np.testing.assert_array_equal([data.train.item(number, None)['input'] for number in range(4)], X)


@pytest.mark.parametrize(
    'targets',
    [
        np.array(['b', 'a', 'b', 'b']),
        objects('b', 'a', 'b', 'b'),
        pd.Series(['b', 'a', 'b', 'b']),
        pd.Series(['b', 'a', 'b', 'b']).astype('category'),
        np.array([b'b', b'a', b'b', b'b']),
    ],
    ids=['array', 'objects', 'series', 'category', 'bytes'],
)
def test_names_of_any_make_are_the_same(targets):
    data = opened(X, targets)
    assert data.classes == ['a', 'b']
    assert [int(data.train.item(number, None)['target']) for number in range(4)] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    'targets',
    [[1.5, None, 3, 4], objects(1.5, None, 3, 4), pd.Series([1.5, None, 3, 4]), pd.array([1.5, None, 3, 4], 'Float64')],
    ids=['list', 'objects', 'series', 'extension'],
)
def test_numbers_with_gaps_of_any_make_are_the_same(targets):
    data = opened(X, targets, missing=True)
    items = [data.train.item(number, None) for number in range(4)]
    assert [(float(item['target']), bool(item['known'])) for item in items] == [
        (1.5, True), (0, False), (3, True), (4, True)
    ]  # fmt: skip


def test_a_table_of_pandas_is_an_array():
    frame = pd.DataFrame({'a': [1, 2], 'b': [3.5, 4]})
    assert open_reader(frame).read(1).tolist() == [2, 4]


def test_samples_of_a_list_may_differ_in_size():
    data = opened([np.zeros((1, 8)), np.ones((1, 12))], crop=[5])
    assert [data.train.item(number, None)['input'].tolist() for number in range(2)] == [[[0.0] * 5], [[1.0] * 5]]
    assert data.train.name(1) == 'array[1]'


@pytest.mark.parametrize(
    ('wrong', 'error', 'message'),
    [
        (None, TypeError, 'None is a NoneType, not an array'),
        (5, TypeError, '5 is a int, not an array'),
        (b'abc', TypeError, 'is a bytes, not an array'),
        ({1, 2}, TypeError, 'is a set, not an array'),
        (torch.zeros(4, 8).to_sparse(), TypeError, 'a tensor of layout torch.sparse_coo holds no plain values'),
        ([{'a': 1}], TypeError, r"a list must hold one sample an item, not \[\{'a': 1\}\]"),
        ([X[0], 'a'], TypeError, 'does not hold one sample an item'),
        (objects({}, 1), TypeError, r'an array of Python objects \(dict, int\) is neither numbers nor names'),
        (pd.DataFrame({'a': [1], 'b': ['c']}), TypeError, r'Python objects \(int, str\)'),
        ([], DataError, 'the list of data files is empty'),
        (np.float32(3), DataError, 'array holds a single number'),
        (X[:0], DataError, 'there are no samples'),
        ({'train': {'x': X}}, TypeError, 'train: inputs must be .* is a dict, not an array'),
    ],
    ids=lambda value: type(value).__name__ if ' at 0x' in str(value) else str(value)[:40],
)  # fmt: skip
def test_what_is_no_data_is_named_with_what_would_be(wrong, error, message):
    with pytest.raises(error, match=message):
        opened(wrong)


@pytest.mark.parametrize(
    ('where', 'message'),
    [
        ((X, {'train': [1, 2, 3, 4]}), 'targets are given for each part, so inputs must be too'),
        (({'train': X}, [1, 2, 3, 4]), 'inputs are given for each part, so targets must be too'),
        ((X, 3), 'targets must be a path, a pattern'),
    ],
)
def test_a_dictionary_stands_for_parts_only(where, message):
    with pytest.raises(TypeError, match=message):
        opened(*where)
    with pytest.raises(TypeError, match=r'predict=.* must not have parts; give the inputs themselves'):
        opened(X, predict={'test': X})
