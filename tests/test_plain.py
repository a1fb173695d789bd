"""Values that a file gives back: made plain, or refused by name."""

import datetime
import enum
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from mdnc._archive import load_archive, save_archive
from mdnc._plain import plain


class Colour(str, enum.Enum):
    RED = 'red'


class Level(enum.IntEnum):
    HIGH = 3


class Attributes(dict):
    pass


VALUES = [
    (np.float64(0.5), 0.5),
    (np.float32(0.5), 0.5),
    (np.int64(3), 3),
    (np.bool_(True), True),
    (np.str_('cat'), 'cat'),
    (np.array([1, 2]), [1, 2]),
    (np.array(['a', None], object), ['a', None]),
    ([np.int32(1), (np.float16(2), 'x')], [1, (2.0, 'x')]),
    ({np.str_('a'): {'b': [np.uint8(7)]}}, {'a': {'b': [7]}}),
    (Path('folder/file'), 'folder/file'),
    (Colour.RED, 'red'),
    (Level.HIGH, 3),
    (Attributes(a=np.float64(1)), {'a': 1.0}),
]


def _kinds(value):
    if isinstance(value, dict):
        return [(type(key), _kinds(item)) for key, item in value.items()]
    return [_kinds(item) for item in value] if isinstance(value, list | tuple) else type(value)


@pytest.mark.parametrize(('given', 'due'), VALUES, ids=lambda value: repr(value))
def test_what_others_numbers_and_words_say_is_said_in_pythons_own(given, due, tmp_path):
    assert plain(given, 'x') == due
    assert _kinds(plain(given, 'x')) == _kinds(due)
    save_archive({'value': given}, tmp_path / 'file')
    assert load_archive(tmp_path / 'file')['value'] == due


def test_what_is_plain_is_not_copied():
    state = OrderedDict(weight=torch.ones(2), more=[1, ('a', None)])
    assert plain(state, 'x') is state


@pytest.mark.parametrize(
    ('value', 'name'),
    [
        ({'a': [0, object()]}, r'x\.a\[1\] is a builtins\.object'),
        (datetime.date(2020, 1, 1), 'x is a datetime.date'),
        (np.datetime64('2020-01-01'), 'x is a datetime.date'),
        ({object: 1}, 'a key of x is a builtins.type'),
        (len, 'x is a builtins.builtin_function_or_method'),
    ],
)
def test_what_no_file_gives_back_is_refused_by_name_and_nothing_written(value, name, tmp_path):
    with pytest.raises(TypeError, match=f'{name}, which no file gives back without running code'):
        plain(value, 'x')
    with pytest.raises(TypeError, match='which no file gives back'):
        save_archive(value, tmp_path / 'x')
    assert not list(tmp_path.iterdir())
