"""Tables as people have them: delimiters, encodings, gaps; what a column holds is told by all its cells."""

import numpy as np
import pytest
from tests.training.data.folders import names, opened, text

from mdnc.training import ArrayData, Regression, Split
from mdnc.training.data import DataError
from mdnc.training.data.sources import open_pair, open_reader
from mdnc.training.data.table import Table

X = np.arange(4.0)[:, None, None] * np.ones((1, 1, 8))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('mark', [',', ';', '\t'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_tables_of_any_program_are_the_same(mark, end, encoding):
    rows = ['name,"size, in cm",kind', 'ä,1.5,"a, b"', 'ö,2,c', '', ',,']
    text('t.csv', *(row.replace(',', mark).replace(f'{mark} ', ', ') for row in rows), end=end, encoding=encoding)
    assert Table('t.csv', 'size, in cm').values.tolist() == [1.5, 2]
    assert Table('t.csv', 'kind').values.tolist() == ['a, b', 'c']
    assert Table('t.csv', ' name ').values.tolist() == ['ä', 'ö']


def test_a_table_may_be_called_tsv():
    text('t.TSV', 'a\tb', '1\t2', '3\t4')
    assert open_reader('t.TSV').read(1).tolist() == [3, 4]


@pytest.mark.parametrize(
    ('cells', 'values', 'kind'),
    [
        (['1', '2', '-3', '+4'], np.array([1, 2, -3, 4]), 'i'),
        (['1', '2', '3', '4.0'], np.array([1.0, 2, 3, 4]), 'f'),
        (['1e3', '2', '3', '4'], np.array([1000.0, 2, 3, 4]), 'f'),
        (['99999999999999999999', '2', '3', '4'], np.array([1e20, 2, 3, 4]), 'f'),
        (['1.5', '""', '3', '4'], np.array([1.5, np.nan, 3, 4]), 'f'),
        (['1', 'NaN', 'N/A', 'null'], np.array([1.0, np.nan, np.nan, np.nan]), 'i'),
        (['1', '', '3', '4'], np.array([1.0, np.nan, 3, 4]), 'i'),
        (['1,5', '2', '-,5', '4'], np.array([1.5, 2, -0.5, 4]), 'f'),
        (['0', '1', 'A', 'B'], np.array(['0', '1', 'A', 'B']), 'U'),
        ([' a', 'a ', '""', 'None'], np.array(['a', 'a', '', 'None']), 'U'),
        (['True', 'False', 'True', 'True'], np.array(['True', 'False', 'True', 'True']), 'U'),
    ],
    ids=str,
)
def test_a_column_is_what_all_its_cells_are(cells, values, kind):
    text('t.csv', 'y', *cells)
    table = Table('t.csv')
    np.testing.assert_array_equal(table.values, values)
    assert table.read(0).dtype.kind == kind


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        (
            ['y', '1.5', '12 °C', '3'],
            r"t\.csv, line 3: column 'y' holds '12 °C', where other rows hold numbers such",
        ),
        (['y', '999', '"1,234"'], r"line 3: column 'y' holds '1,234', where other rows hold numbers such as 999"),
        (['y', '1_000', '2'], r"line 2: column 'y' holds '1_000'"),
        (['y,z', '1,', '2,'], r"t\.csv: all cells of column 'z' are empty"),
        (['y,z', '1,2', '3'], r"t\.csv, line 3: it has 1 cells, the header has 2: \['y', 'z'\]"),
        (['y,z', '1,2,3', '3,4,5'], r'line 2: it has 3 cells, the header has 2'),
        (['y,y', '1,2'], r"2 columns are called 'y'"),
        (['y'], r"has no rows below its header \['y'\]"),
        ([''], r't\.csv is empty'),
        (['1.5,2', '3,4'], r"has no header line: its first line is \['1\.5', '2'\]"),
        (['y,z', 'a,1', 'b,2'], r"column 'y' holds words; choose columns of numbers, or it alone"),
        (['file', 'a', 'b'], r'no column is left; its columns are'),
        (['y', '"a'], r't\.csv cannot be read: unexpected end of data'),
    ],
    ids=str,
)
def test_what_is_no_table_is_named_by_its_line(lines, message):
    text('t.csv', *lines)
    with pytest.raises(DataError, match=message):
        open_reader('t.csv')


@pytest.mark.parametrize('raw', [b'\xff\xfe\x00\x01\x00', b'\xe9,b\n1,2', bytes(range(128)), b'PK\x03\x04\x00\x00'])
def test_what_is_no_text_is_named(raw, tmp_path):
    (tmp_path / 't.csv').write_bytes(raw)
    with pytest.raises(DataError, match=r't\.csv is no text'):
        open_reader('t.csv')


def test_columns_without_a_name_are_row_numbers():
    text('t.csv', ',y', '0,5', '1,6')
    assert open_reader('t.csv').read(1) == 6


def test_lines_between_rows_keep_their_numbers():
    text('t.csv', 'a,y', '"x', 'z",1', '', 'w,2')
    reader = open_reader('t.csv::y')
    assert [reader.name(row) for row in range(2)] == ['t.csv, line 3', 't.csv, line 5']


def test_one_kind_over_several_tables():
    text('a.csv', 'y', '1.5', '2')
    text('b.csv', 'y', '3', '4')
    for where in (['a.csv', 'b.csv'], '[ab].csv::y'):
        assert [item['target'].dtype.kind for item in (opened(X, where).train.item(n, None) for n in range(4))] == [
            'f'
        ] * 4
    text('b.csv', 'y', 'c', 'd')
    with pytest.raises(DataError, match=r'b\.csv contains words, but a\.csv contains numbers'):
        open_reader(['a.csv', 'b.csv'])


# Gaps.


def test_an_empty_cell_is_refused_by_its_row_or_left_out():
    text('y.csv', 'id,celsius', '0,-10', '1,', '2,-9.5', '3,0')
    with pytest.raises(DataError, match=r'y\.csv, line 3: a cell of celsius is empty \(missing: true'):
        opened(X, 'y.csv::celsius')
    data = opened(X, 'y.csv::celsius', missing=True)
    assert names(data.train) == ['array[0]', 'array[2]', 'array[3]']
    assert data.train.item(1, None)['target'] == -9.5
    np.testing.assert_allclose(data.target_normalisation['mean'], np.mean([-10, -9.5, 0]))
    assert data.classes is None


def test_a_sample_without_a_class_is_refused_or_left_out():
    text('y.csv', 'id,kind', '0,b', '1,', '2,a', '3,b')
    for targets in ('y.csv::kind', np.array(['b', '', 'a', 'b']), np.array(['b', None, 'a', 'b'], object)):
        with pytest.raises(DataError, match=r'(line 3: a cell of kind|array\[1\]: the name of the class) is empty'):
            opened(X, targets)
        for options in ({'missing': True}, {'nonfinite': 'skip'}):
            data = opened(X, targets, **options)
            assert data.classes == ['a', 'b']
            assert [data.train.name(number) for number in range(len(data.train))] == [
                'array[0]',
                'array[2]',
                'array[3]',
            ]


def test_class_numbers_stay_whole_beside_an_empty_cell():
    text('y.csv', 'id,kind', '0,1', '1,', '2,0', '3,1')
    for options in ({'missing': True}, {'nonfinite': 'skip'}):
        targets = [item['target'] for item in map(opened(X, 'y.csv::kind', **options).train.item, range(3), [None] * 3)]
        assert [(target.dtype.kind, int(target)) for target in targets] == [('i', 1), ('i', 0), ('i', 1)]


def test_rows_of_several_quantities_may_be_known_in_part():
    text('y.csv', 'id,a,b', '0,1,2', '1,,4', '2,,', '3,7,8')
    data = opened(X, 'y.csv::a,b', missing=True)
    assert names(data.train) == ['array[0]', 'array[1]', 'array[3]']
    item = data.train.item(1, None)
    assert (item['target'].tolist(), item['known'].tolist()) == ([0, 4], [False, True])
    assert data.train.item(0, None)['target'].dtype == item['target'].dtype
    with pytest.raises(DataError, match='no sample of the training part has a target'):
        opened(X, 'y.csv::a,b', missing=True, split={'given': given_rows([2])})


def given_rows(numbers):
    np.savez('given.npz', train=numbers)
    return 'given.npz'


def test_gaps_in_inputs_are_refused():
    text('x.csv', 'a,b', '1,2', '3,', '5,6')
    with pytest.raises(DataError, match=r'x\.csv, line 3: a cell of a, b is empty \(nonfinite: skip'):
        opened('x.csv', order=1)


@pytest.mark.parametrize('normalise', [True, False])
def test_names_are_no_quantities(normalise):
    text('y.csv', 'y', 'low', 'high', 'low', 'high')
    data = opened(X, 'y.csv', normalise=normalise)
    task = Regression({'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_length': 1}})
    with pytest.raises(DataError, match=r'the targets are names of classes \(high, low, …\), not quantities'):
        task.ask(data)


# One table of inputs and targets.

TABLE = ['file,a,b,kind', 'p,1,2,x', 'q,3,4,y', 'r,5,6,x']


@pytest.mark.parametrize(
    ('inputs', 'targets'),
    [
        ('t.csv', 't.csv::kind'),
        ('t.csv::a,b', 't.csv'),
        ('./t.csv', 't.csv::kind'),
        (['t.csv'], ['t.csv::kind']),
        ('t.*', 't.*::kind'),
    ],
)
def test_the_target_is_no_input(inputs, targets):
    text('t.csv', *TABLE)
    data = opened(inputs, targets, order=1)
    assert [data.train.item(number, None)['input'].tolist() for number in range(3)] == [[[1, 2]], [[3, 4]], [[5, 6]]]
    assert [int(data.train.item(number, None)['target']) for number in range(3)] == [0, 1, 0]


def test_a_table_of_both_needs_a_name():
    text('t.csv', *TABLE)
    with pytest.raises(DataError, match=r't\.csv contains inputs and targets: name the columns of one of them'):
        open_pair('t.csv', 't.csv')


@pytest.mark.parametrize(
    ('inputs', 'expected'), [('t.csv', [[7, 8]]), ('t.csv::b,a', [[8, 7]]), ({'train': 't.csv::a,b'}, [[7, 8]])]
)
def test_new_rows_are_read_as_those_of_the_training(inputs, expected):
    text('t.csv', *TABLE)
    text('new.csv', 'kind,b,other,a', 'x,8,0,7', 'y,10,0,9')
    targets = {'train': 't.csv::kind'} if isinstance(inputs, dict) else 't.csv::kind'
    for stages in (['predict'], ['fit', 'predict']):
        data = ArrayData(inputs, targets, order=1, predict='new.csv', split=Split(0, 0))
        for stage in stages:
            data.setup(stage)
        assert data.predict.item(0, None)['input'].tolist() == expected
    text('new.csv', 'kind,b', 'x,8')
    with pytest.raises(DataError, match=r"new\.csv: no column \['a'\]; its columns are \['kind', 'b'\]"):
        data.setup('predict')


def test_new_rows_without_the_training_data_are_read_as_was_written():
    text('new.csv', 'kind,b,a', 'x,8,7')
    for inputs, expected in (('gone.csv', [[8, 7]]), ('gone.csv::a,b', [[7, 8]])):
        data = ArrayData(inputs, 'gone.csv::kind', order=1, predict='new.csv')
        data.setup('predict')
        assert data.predict.item(0, None)['input'].tolist() == expected


def test_columns_in_another_order_are_the_same_columns():
    text('a.csv', 'p,q,y,z', '1,2,3,4')
    text('b.csv', 'z,y,q,p', '40,30,20,10')
    data = opened({'train': 'a.csv::p,q', 'test': 'b.csv'}, {'train': 'a.csv::y,z', 'test': 'b.csv'}, order=1)
    assert data.test.item(0, None)['input'].tolist() == [[10, 20]]
    assert data.test.item(0, None)['target'].tolist() == [30, 40]
    samples = opened(['a.csv', 'b.csv'], order=1).train
    assert samples.item(1, None)['input'].tolist() == [[10, 20, 30, 40]]
    text('b.csv', 'z,y', '1,2')
    with pytest.raises(DataError, match=r"b\.csv: no column \['p', 'q'\]"):
        open_reader(['a.csv', 'b.csv'])
