"""What is read of data: sizes, values, targets, groups, faults."""

import warnings

import numpy as np
import pytest
from PIL import Image

from mdnc.planning import Fingerprint, plan, read_fingerprint
from mdnc.planning.request import make_data
from mdnc.planning.running_statistics import Reservoir, RunningStatistics
from mdnc.planning.sample_features import Objects, Spectrum, empty_borders, find_groups
from mdnc.training import ArrayData, DataError, NetClassifier, train

RNG = np.random.default_rng(0)


def _read(*arguments, **options):
    data = ArrayData(*arguments, **options)
    return read_fingerprint(data.pairs(), data.order, data.classes)


def test_a_reservoir_knows_percentiles_of_more_values_than_it_keeps():
    reservoir = Reservoir(2000)
    for piece in np.array_split(RNG.permutation(100_000.0 * np.arange(1000) / 1000), 7):
        for _ in range(50):
            reservoir.add(piece)
    low, middle, high = reservoir.percentiles()
    assert reservoir.seen == 50_000
    assert abs(middle - 50_000) < 4000 and abs(low - 500) < 500 and abs(high - 99_500) < 500


def test_a_reservoir_is_exact_while_all_fits_and_holds_early_and_late_values_alike():
    reservoir = Reservoir(100)
    reservoir.add(np.arange(99.0))
    assert reservoir.percentiles()[1] == 49
    late = Reservoir(4000)
    late.add(np.zeros(30_000))
    late.add(np.ones(10_000))
    assert abs(late._kept.mean() - 0.25) < 0.03


def test_a_tally_merges_pieces_exactly_and_counts_holes():
    values = RNG.normal(1e6, 1, (2, 5000))
    values[0, 3] = np.nan
    tally = RunningStatistics(2)
    for piece in np.array_split(values, 6, 1):
        tally.add(piece)
    figures = tally.to_list()
    assert tally.holes == 1
    assert figures[1]['std'] == pytest.approx(values[1].std(), rel=1e-5)
    assert figures[0]['mean'] == pytest.approx(np.nanmean(values[0]), rel=1e-6)


def test_signals_with_classes_are_known_with_their_period():
    waves = np.sin(2 * np.pi * np.arange(300) / 25)[None, None] + 0.1 * RNG.normal(size=(30, 2, 300))
    found = _read(waves.astype(np.float32), np.arange(30) % 3)
    assert (found.order, found.channels, found.size, found.samples) == (1, 2, (300,), 30)
    assert found.target.kind == 'classes' and found.target.counts == [10, 10, 10]
    assert found.periods[0]['length'] == 25


@pytest.mark.parametrize(
    ('targets', 'kind', 'outputs'),
    [
        (np.array(['cat', 'dog'] * 10), 'names', 2),
        (np.arange(20) % 2, 'classes', 2),
        (np.arange(20) * 37, 'numbers', 1),
        (np.arange(20) % 2 * 2 - 1, 'classes', 2),
        (np.arange(20) % 3 - 1, 'numbers', 1),
        (RNG.normal(size=20), 'numbers', 1),
        (RNG.normal(size=(20, 4)), 'numbers', 4),
        (RNG.integers(0, 3, (20, 12, 10)), 'class map', 3),
        (RNG.normal(size=(20, 2, 12, 10)), 'map', 2),
        (None, 'none', 0),
    ],
)
def test_targets_say_what_they_are(targets, kind, outputs):
    found = _read(RNG.normal(size=(20, 1, 12, 10)).astype(np.float32), targets).target
    assert (found.kind, found.outputs) == (kind, outputs)


def test_a_map_knows_its_objects_and_what_lies_in_them():
    labels = np.zeros((6, 20, 30), np.uint8)
    labels[:, 2:7, 3:13] = 1
    labels[:, 12:15, 20:22] = 1
    images = RNG.normal(size=(6, 1, 20, 30)) + 10 * labels[:, None]
    found = _read(images.astype(np.float32), labels)
    assert found.target.objects['1'] == {'parts': 12, 'median': [5, 10], 'largest': [5, 10]}
    assert found.foreground[0]['mean'] == pytest.approx(10, abs=0.2)
    assert found.background[0]['mean'] == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize(('values', 'ignore', 'outputs'), [((0, 1, 2, 255), 255, 3), ((-1, 0, 1), -1, 2)])
def test_a_number_that_is_no_class_is_left_out(values, ignore, outputs):
    labels = RNG.choice(values, (4, 8, 8)).astype(np.int64)
    found = _read(np.zeros((4, 1, 8, 8), np.float32), labels).target
    assert (found.ignore, found.outputs) == (ignore, outputs)


def test_faults_are_counted_and_named(tmp_path):
    for number in range(6):
        Image.fromarray(RNG.integers(0, 99, (8, 9), np.uint8)).save(tmp_path / f'{number}.png')
    (tmp_path / '2.png').write_bytes(b'no image')
    (tmp_path / '5.png').write_bytes((tmp_path / '4.png').read_bytes())
    faults = {fault['kind']: fault for fault in _read(str(tmp_path)).faults}
    assert set(faults) == {'unreadable', 'duplicate'}
    assert '2.png' in faults['unreadable']['text'] and '4.png' in faults['duplicate']['text']


def test_nan_and_constant_channels_are_faults():
    signals = RNG.normal(size=(5, 2, 40)).astype(np.float32)
    signals[1, 0, 3], signals[:, 1] = np.nan, 7
    kinds = {fault['kind'] for fault in _read(signals, np.arange(5) % 2).faults}
    assert kinds == {'not finite', 'constant channel'}


@pytest.mark.parametrize(
    ('targets', 'kind', 'faults'),
    [
        (np.where(RNG.random((6, 8, 9)) < 0.1, np.nan, RNG.normal(size=(6, 8, 9))), 'map', {'unknown targets'}),
        (
            np.where(RNG.random((6, 8, 9)) < 0.1, np.nan, RNG.integers(0, 3, (6, 8, 9))),
            'class map',
            {'unknown targets'},
        ),
        (np.where(RNG.random((6, 8, 9)) < 0.1, np.inf, RNG.normal(size=(6, 8, 9))), 'map', {'not finite'}),
        (np.array([0.5, np.nan, 1.5, 2, 3, 4]), 'numbers', {'unknown targets'}),
    ],
)
def test_targets_that_are_not_known_are_faults(targets, kind, faults):
    found = _read(RNG.normal(size=(6, 1, 8, 9)).astype(np.float32), targets)
    assert found.target.kind == kind
    assert {fault['kind'] for fault in found.faults} == faults
    words = plan(found, 2**28).words
    assert words.get('data.missing', False) == (faults == {'unknown targets'})
    assert words.get('data.nonfinite') == ('skip' if faults == {'not finite'} else None)


def test_nothing_that_can_be_read_and_targets_of_mixed_kinds_are_refused(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'no image')
    with pytest.raises(DataError, match='none of 1 samples can be read'):
        _read(str(tmp_path))
    inputs = [np.zeros((1, side, 6), np.float32) for side in (6, 5)]
    targets = [np.zeros((6, 6), np.int64), np.zeros((5, 6), np.float32)]
    with pytest.raises(DataError, match=r'different kinds.*map of whole numbers.*map of quantities'):
        _read(inputs, targets)


def test_a_label_that_no_class_is_named_for_is_a_fault():
    found = _read(np.zeros((6, 1, 9), np.float32), np.array([0, 1, 2, 0, 1, 5]), classes=['a', 'b', 'c'])
    assert [fault['text'] for fault in found.faults if fault['kind'] == 'label outside'] == [
        'the number 5 is none of the 3 classes'
    ]


@pytest.mark.parametrize(
    ('names', 'classes', 'count'),
    [
        ([f'p{person}_{scan}.png' for person in range(4) for scan in range(3)], None, 4),
        ([f'p{person}/{scan}.png' for person in range(4) for scan in range(3)], None, 4),
        ([f'{kind}/{scan}.png' for kind in 'ab' for scan in range(6)], [0] * 6 + [1] * 6, 0),
        ([f'image_{scan}.png' for scan in range(12)], None, 0),
    ],
)
def test_groups_are_seen_in_names_unless_they_are_the_classes(names, classes, count):
    assert find_groups(names, classes).get('count', 0) == count


def test_borders_and_objects_and_periods():
    volume = np.zeros((1, 10, 20, 8))
    volume[:, 2:7, 5:15] = 1
    assert empty_borders(volume) == [0.5, 0.5, 0.0]
    objects = Objects()
    objects.add(np.kron(np.eye(3, dtype=int), np.ones((4, 4), int)))
    assert objects.to_dict()['1'] == {'parts': 3, 'median': [4, 4], 'largest': [4, 4]}
    flat = Spectrum(64)
    flat.add(np.ones((1, 64)))
    assert flat.periods() == []


def test_a_fingerprint_comes_back_from_its_plain_values():
    found = _read(RNG.normal(size=(6, 1, 16)).astype(np.float32), np.arange(6) % 2)
    assert Fingerprint.from_dict(found.to_dict()) == found
    with pytest.raises(ValueError, match="'sice' is no word"):
        Fingerprint.from_dict({**found.to_dict(), 'sice': 1})


def test_maps_of_whole_fractions_are_classes_and_others_are_not():
    labels = RNG.choice([0.0, 2.0], (6, 8, 8))
    found = _read(np.zeros((6, 1, 8, 8), np.float32), labels).target
    assert (found.kind, found.codes, found.outputs) == ('class map', [0, 2], 2)
    assert _read(np.zeros((6, 1, 8, 8), np.float32), labels + 0.5).target.kind == 'map'


def _images(folder, kinds):
    for number, (shape, dtype) in enumerate(kinds):
        Image.fromarray(RNG.integers(0, 200, shape).astype(dtype)).save(folder / f'{number:02}.png')
    return str(folder)


RGB, RGBA, GREY = ((16, 16, 3), 'u1'), ((16, 16, 4), 'u1'), ((16, 16), 'u1')


def test_samples_of_several_kinds_are_refused_with_names(tmp_path):
    where = _images(tmp_path, [RGB] * 4 + [GREY] * 5 + [RGBA])
    said = (
        r'5 of 1 channel and 2 axes \(04.png, 05.png, 06.png, …\), 4 of 3 channels and 2 axes \(00.png, .*\), '
        r"1 of 4 channels and 2 axes \(09.png\): for image files, colours='rgb'"
    )
    with pytest.raises(DataError, match=said):
        _read(where)
    signals = [np.zeros((channels, 30), np.float32) for channels in (2, 2, 3)]
    with pytest.raises(DataError, match=r'1 of 3 channels and 1 axis .* name those of one kind'):
        plan(ArrayData(signals), 2**28)
    with pytest.raises(DataError, match=r'2 of 1 channel and 2 axes .*, 1 of 1 channel and 3 axes'):
        plan(ArrayData([np.zeros((1, *[8] * order), np.float32) for order in (2, 2, 3)]), 2**28)


@pytest.mark.parametrize(
    ('kinds', 'colours'),
    [([RGB] * 4 + [GREY] * 5 + [RGBA], 'rgb'), ([GREY] * 8 + [((16, 16, 2), 'u1')] * 2, 'grey')],
)
def test_a_plan_of_images_in_grey_and_colour_converts_them_says_so_and_trains(kinds, colours, tmp_path):
    (tmp_path / 'images').mkdir()
    where = _images(tmp_path / 'images', kinds)
    made = plan(where, 2**28, {'model.class_path': 'Reconstruction'})
    assert made.words['data.colours'] == colours
    assert made.notes[0].startswith('colours: there are images 5 of' if colours == 'rgb' else 'colours: there are')
    assert made.notes[0].endswith(f'all become {colours}')
    assert made.words['model.network.arguments.in_planes'] == (3 if colours == 'rgb' else 1)
    data = make_data(made.words)
    data.setup()
    assert {len(data.train.item(number, None)['input']) for number in range(len(data.train))} == {data.train.form[0]}
    own = ArrayData(where)
    assert plan(own, 2**28).words['data.colours'] == colours
    assert own._look.colours is None, 'a plan changes nothing of the data it is given'


def test_a_plan_keeps_how_data_of_python_are_read(tmp_path):
    where = _images(tmp_path, [RGB] * 4 + [GREY] * 5)
    words = plan(ArrayData(where, colours='grey', resize=[12, 12], mirror=[1]), 2**28).words
    assert [words[f'data.{name}'] for name in ('colours', 'resize', 'mirror')] == ['grey', [12, 12], [1]]
    np.save(tmp_path / 'x.npy', RNG.normal(size=(6, 1, 100)))
    words = plan(ArrayData(str(tmp_path / 'x.npy'), window=20, hop=10), 2**28).words
    assert (words['data.window'], words['data.hop']) == (20, 10)


def test_images_of_8_and_16_bits_get_scales_of_their_own(tmp_path):
    for kind in 'ab':
        (tmp_path / kind).mkdir()
        for number in range(6):
            deep = number % 3 == 0
            pixels = RNG.integers(0, 2**16 if deep else 2**8, (16, 16)).astype('u2' if deep else 'u1')
            Image.fromarray(pixels).save(tmp_path / kind / f'{number}.png')
    made = plan(str(tmp_path), 2**28)
    assert made.words['data.normalise'] == 'sample'
    note = next(note for note in made.notes if note.startswith('mixed depths'))
    assert 'a/1.png' in note and 'a/0.png' in note
    for words, due in (({}, 'sample'), ({'normalise': True}, None)):
        data = ArrayData(str(tmp_path), 'folder', split={'val': 0, 'test': 0}, **words)
        data.setup()
        if due:
            assert data.facts['normalisation'] == {'by': due}
            continue
        with pytest.warns(UserWarning, match=r'normalise=true, but samples are stored in 8 bits \(a/1.png\) and in 16'):
            assert data.facts['normalisation'] != {'by': 'sample'}


SIGNALS = RNG.normal(size=(24, 1, 32)).astype(np.float32)


@pytest.mark.parametrize('kind', ['u1', 'i8', 'f4'])
def test_vectors_of_0_and_1_are_labels(kind):
    labels = RNG.integers(0, 2, (24, 3)).astype(kind)
    made = plan(ArrayData(SIGNALS, labels), 2**28)
    assert made.words['model.class_path'] == 'MultiLabel'
    assert made.words['model.network.arguments.out_length'] == 3
    assert plan(ArrayData(SIGNALS, labels), 2**28, {'model.class_path': 'Regression'}).words['model.class_path']
    assert (
        train('EncoderNet', (SIGNALS, labels), epochs=1, channel=4, layers=[1, 1]).facts['answer']['output'] == 'shares'
    )
    assert plan(ArrayData(SIGNALS, labels + labels), 2**28).words['model.class_path'] == 'Regression'


def _notes(*arguments, **options):
    found = plan(ArrayData(*arguments, **options), 2**28)
    return found.words['model.class_path'], ' | '.join(found.notes)


def test_what_targets_may_mean_instead_is_said(tmp_path):
    task, notes = _notes(SIGNALS, np.eye(4)[np.arange(24) % 4])
    assert task == 'MultiLabel' and 'each target has a single 1: if classes exclude each other' in notes
    floats = np.arange(24) % 3 + 1.0
    task, notes = _notes(SIGNALS, floats)
    assert task == 'Regression' and 'the targets are 1, 2, 3, stored as fractions' in notes
    assert _notes(SIGNALS, floats, values=[1, 2, 3])[0] == 'Classification'
    assert 'stored as fractions' not in _notes(SIGNALS, floats + RNG.normal(size=24))[1]
    assert 'constant target: quantity 0 is 0.1 in all samples' in _notes(SIGNALS, np.full(24, 0.1))[1]
    masks = np.zeros((24, 3, 8, 9), np.uint8)
    masks[:, 0, :4], masks[:, 1, 6:] = 255, 255
    task, notes = _notes(RNG.normal(size=(24, 1, 8, 9)), masks)
    assert task == 'DenseRegression' and 'the targets are images of 3 colours' in notes
    assert 'colours' not in _notes(RNG.normal(size=(24, 1, 8, 9)), RNG.integers(0, 255, masks.shape, np.uint8))[1]


def test_a_mask_of_another_size_than_its_image_is_said_with_both(tmp_path):
    inputs = [np.zeros((1, 8, 8), np.float32)] * 3
    with pytest.raises(DataError, match=r'of array\[2\] .* of shape \(6, 6\) beside an input of \(8, 8\)'):
        _read(inputs, [np.zeros((side, side), np.int64) for side in (8, 8, 6)])


@pytest.mark.parametrize(
    ('shape', 'said'),
    [
        ((32, 48, 3), True),
        ((200, 9), True),
        ((1, 32, 32), False),
        ((200, 3, 3), False),
        ((3, 64, 4), False),
        ((64, 200), False),
    ],
)
def test_channels_that_come_last_are_warned_of(shape, said):
    values = RNG.normal(size=(12, *shape)).astype(np.float32)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        ArrayData(values, np.arange(12) % 2).setup()
        NetClassifier(epochs=1).fit(values[:4], np.arange(4) % 2)
    found = [str(each.message) for each in seen if 'channels first, so these are' in str(each.message)]
    assert len(found) == 2 * said
    assert ('channels last' in _notes(values, np.arange(12) % 2)[1]) == said
