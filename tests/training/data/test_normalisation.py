"""What inputs are normalised by: the training part, each sample, or the training part clipped at percentiles."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_wine

from mdnc.modules._inference import Steps
from mdnc.modules._standardization import Scale, normalised_by
from mdnc.modules.resnet import EncoderNet1d
from mdnc.training import (
    ArrayData,
    Augmentation,
    Classification,
    Reconstruction,
    Regression,
    Segmentation,
    make_trainer,
)
from mdnc.training.augmentation.mixing import cut_mixed, mixed_up
from mdnc.training.checkpoint import newest
from mdnc.training.data.normalisation import AmplitudeSpread, Columns, input_figures, read_pieces

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(12, 2, 20, 16)) * RNG.uniform(1, 9, (12, 2, 1, 1)) + 100).astype('f4')
NO_SPLIT = {'split': {'val': 0, 'test': 0}}
UNET = {'channel': 4, 'layers': [1, 1], 'in_planes': 2, 'out_planes': 2, 'kernel_size': 3}


class Seen(torch.nn.Module):
    """Gives back what it gets, and keeps it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        self.seen = x.detach()
        return x * self.weight


def _data(by, **options):
    data = ArrayData(X, normalise=by, **{**NO_SPLIT, **options})
    data.setup()
    return data


def test_by_sample_is_each_channel_of_each_sample():
    facts = _data('sample').facts['normalisation']
    assert facts == {'by': 'sample'}
    found = Scale(facts).standard(torch.from_numpy(X))
    due = (X - X.mean((2, 3), keepdims=True)) / X.std((2, 3), keepdims=True)
    np.testing.assert_allclose(found, due, atol=1e-4)
    flat = Scale(facts).standard(torch.full((1, 1, 5), 1e6))
    assert torch.equal(flat, torch.zeros(1, 1, 5)), 'a constant channel is none that blows up'


def test_percentiles_are_those_of_numpy_and_outliers_do_not_count():
    x = X.copy()
    x[3, 0, 2, 2] = 1e9
    data = ArrayData(x, normalise='percentiles', **NO_SPLIT)
    data.setup()
    facts = data.facts['normalisation']
    rows = x.transpose(1, 0, 2, 3).reshape(2, -1).astype('f8')
    low, high = np.percentile(rows, [0.5, 99.5], axis=1)
    clipped = np.clip(rows, low[:, None], high[:, None])
    for name, due in {'low': low, 'high': high, 'mean': clipped.mean(1), 'std': clipped.std(1)}.items():
        np.testing.assert_allclose(facts[name], due, rtol=1e-6, err_msg=name)
    found = Scale(facts).standard(torch.from_numpy(x))
    due = (clipped - clipped.mean(1, keepdims=True)) / clipped.std(1, keepdims=True)
    np.testing.assert_allclose(found.transpose(0, 1).reshape(2, -1), due, atol=1e-3)


@pytest.mark.parametrize('axis', [True, False], ids=['channel', 'lone'])
def test_percentiles_of_maps_are_those_of_the_positions_that_are_no_background(axis):
    x, y = X[:, :1], (X[:, 0] > 105).astype(int)
    y[0, :3] = 255
    data = ArrayData(x, y[:, None] if axis else y, normalise='percentiles', **NO_SPLIT)
    task = Segmentation({'name': 'UNet2d', 'arguments': {**UNET, 'in_planes': 1}}, ignore=255)
    trainer = make_trainer('.', max_epochs=1, enable_progress_bar=False)
    trainer.strategy._lightning_module, data.trainer = task, trainer
    data.setup()
    inside = x[:, 0][y == 1]
    np.testing.assert_allclose(data.facts['normalisation']['low'], np.percentile(inside, 0.5, axis=None), rtol=1e-6)
    nothing = ArrayData(x, np.zeros_like(y), normalise='percentiles', **NO_SPLIT)
    nothing.setup()
    np.testing.assert_allclose(nothing.facts['normalisation']['high'], np.percentile(x, 99.5), rtol=1e-6)


def test_of_many_values_some_are_drawn(monkeypatch):
    monkeypatch.setattr('mdnc.training.data.normalisation._KEPT', 4000)
    facts = _data('percentiles').facts['normalisation']
    rows = X.transpose(1, 0, 2, 3).reshape(2, -1)
    np.testing.assert_allclose(facts['mean'], rows.mean(1), atol=1)
    assert facts == _data('percentiles').facts['normalisation'], 'the same each time'


@pytest.mark.parametrize(
    'options', [{}, {'patch': [8, 8]}, {'crop': [8, 8]}, {'patch': [30, 30], 'corruption': 3.0}], ids=str
)
def test_training_samples_bring_what_a_prediction_would_have(options):
    data = _data('sample', **options)
    batch = next(iter(data.train_dataloader()))
    index = batch['index']
    if 'patch' in options:
        noise = options.get('corruption', 0.0)
        due = np.stack([X.mean((2, 3)), np.hypot(X.std((2, 3)), noise)], -1)[index]
    else:
        values = batch['input'].numpy()
        due = np.stack([values.mean((2, 3)), values.std((2, 3))], -1)
    np.testing.assert_allclose(batch['figures'], due, rtol=1e-4)
    assert 'figures' not in data.train.item(0, None), 'elsewhere they are those of what is given'


def test_the_network_gets_samples_so_normalised_whatever_is_done_to_them(tmp_path):
    words = Augmentation(brightness=[2.0, 2.0])
    data = ArrayData(X, np.arange(12) % 2, normalise='sample', augmentation=words, batch_size=12, **NO_SPLIT)
    task = Classification(_Pooled())
    trainer = make_trainer(tmp_path, max_epochs=1, enable_progress_bar=False)
    trainer.fit(task, data)
    due = (X.mean((2, 3)) / X.std((2, 3))).mean()  # (2 m − m) / s
    assert task.network.net.seen.mean() == pytest.approx(due, rel=1e-4), 'what is done to them is not taken back'
    task.predict(X)
    assert abs(float(task.network.net.seen.mean())) < 1e-4


class _Pooled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.head = Seen(), torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.net(x).mean((2, 3)))


def test_tiles_and_mirror_images_are_normalised_by_the_whole_sample():
    answer = {'output': 'scores', 'dense': True}
    data = {'answer': answer, 'normalisation': {'by': 'sample'}, 'patch': [8, 8], 'tiles': 3, 'mirror': [0, 1]}
    x, net = torch.from_numpy(X), Seen()
    due = Scale({'by': 'sample'}).standard(x)
    with torch.no_grad():
        torch.testing.assert_close(Steps(data).whole(net, x), due, atol=1e-4, rtol=1e-4)
        slabs = torch.cat([part for _, part in Steps(data).slabs(net, x)], 2)
        padded = torch.nn.functional.pad(x, (0, 4, 0, 3))
        lengths = torch.tensor([[20, 16]] * 12)
        alone = Steps({**data, 'patch': None, 'mirror': []}).whole(net, padded, lengths)
    torch.testing.assert_close(slabs, due, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone, due, atol=1e-4, rtol=1e-4)


def test_samples_are_mixed_as_normalised():
    x = torch.from_numpy(X[:2])
    batch = {'input': x, 'target': torch.tensor([0, 1]), 'figures': torch.stack([x.mean((2, 3)), x.std((2, 3))], -1)}
    others, share = torch.tensor([1, 0]), torch.tensor([0.75, 0.5])
    scale = Scale({'by': 'sample'})
    plain = scale.standard(x, batch['figures'])
    mixed = scale.standard(mixed_up(batch, others, share)['input'], batch['figures'])
    wide = share.view(2, 1, 1, 1)
    torch.testing.assert_close(mixed, wide * plain + (1 - wide) * plain[others], atol=1e-4, rtol=1e-4)
    inside = torch.zeros(2, 20, 16, dtype=torch.bool)
    inside[:, :10] = True
    cut = scale.standard(cut_mixed(batch, batch, others, inside, [])['input'], batch['figures'])
    torch.testing.assert_close(cut[:, :, :10], plain[others][:, :, :10], atol=1e-4, rtol=1e-4)
    assert torch.equal(cut[:, :, 10:], plain[:, :, 10:])


@pytest.mark.parametrize('by', ['sample', 'percentiles'])
def test_what_is_given_back_is_in_the_units_of_the_data(tmp_path, by):
    task = Reconstruction(Seen(), residual=True)
    data = ArrayData(X, normalise=by, corruption=5.0, batch_size=6, split={'val': 0, 'test': 0.5})
    trainer = make_trainer(tmp_path, max_epochs=1, enable_progress_bar=False)
    trainer.fit(task, data)
    with torch.no_grad():
        task.network.weight.zero_()
    np.testing.assert_allclose(task.predict(X), X, rtol=1e-4)


def test_a_network_is_not_run_on_data_that_say_otherwise(tmp_path):
    targets = np.arange(12) % 2
    network = {'name': 'EncoderNet2d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 2, 'out_length': 2}}
    trainer = make_trainer(tmp_path, max_epochs=1, enable_progress_bar=False)
    task = Classification(network)
    trainer.fit(task, ArrayData(X, targets, normalise='percentiles', **NO_SPLIT))
    again = make_trainer(tmp_path, enable_progress_bar=False)
    test = {'split': {'val': 0, 'test': 0.5}}
    with pytest.raises(ValueError, match=r"say normalise=sample, but .* trained with normalise=percentiles: leave"):
        again.test(task, ArrayData(X, targets, normalise='sample', **test), verbose=False)
    again.test(task, ArrayData(X, targets, normalise='set', **test), verbose=False)


@pytest.mark.parametrize('value', ['Set', '', 'zscore', 3, None, ['sample']], ids=str)
def test_other_words_are_refused(value):
    with pytest.raises(
        (ValueError, TypeError),
        match=r"^ArrayData: normalise=.* must be true, false, 'set', 'sample', 'percentiles', 'auto'",
    ):
        ArrayData(X, normalise=value)


# ---- normalise: auto ----

LOUD = np.float32(10.0) ** np.linspace(-3, 3, 24, dtype='f4')  # amplitudes over six decades
ENCODER = {'channel': 4, 'layers': [1, 1], 'out_length': 2}


def _signals(amplitudes, channels=2):
    x = np.random.default_rng(3).normal(size=(24, channels, 32)).astype('f4')
    x[:, -1] *= amplitudes[:, None]
    return x


def _opened(x, **options):
    data = ArrayData(x, np.arange(len(x)) % 2, batch_size=12, **{**NO_SPLIT, **options})
    data.setup()
    return data


def test_the_spread_of_amplitudes_is_that_of_numpy():
    data = _opened(x := _signals(LOUD))
    pieces = read_pieces(data._parts['train'][0].inputs, range(24), lambda number: False)
    spread = input_figures(pieces).spread
    np.testing.assert_allclose(spread.decades, np.log10(x.astype('f8').std(2)).std(0), rtol=1e-6)
    assert spread.widest == 1


@pytest.mark.parametrize(
    ('amplitudes', 'by'),
    [
        (LOUD, 'sample'),
        (LOUD ** np.float32(0.8), 'set'),  # 1.44 decades
        (np.ones(24, 'f4'), 'set'),
        (np.where(np.arange(24) < 7, LOUD, 0), 'set'),  # constant samples are left out, and 7 are too few
        (np.where(np.arange(24) % 3, LOUD, 0), 'sample'),
    ],
    ids=['six decades', 'fewer', 'alike', 'few', 'constant ones'],
)
def test_auto_looks_at_amplitudes(capsys, amplitudes, by):
    data = _opened(_signals(amplitudes))
    assert normalised_by(data.facts['normalisation']) == by
    assert normalised_by(data.facts['normalisation']) == by
    said = capsys.readouterr().out
    assert said.count('normalise=auto: samples of channel 1 differ in amplitude by orders of magnitude') == (
        by == 'sample'
    )


def test_few_samples_are_normalised_together():
    assert normalised_by(_opened(_signals(LOUD)[::4]).facts['normalisation']) == 'set'


@pytest.mark.parametrize('word', [True, 'set'])
def test_one_scale_for_samples_of_all_amplitudes_is_warned_of_once(word):
    data = _opened(_signals(LOUD), normalise=word)
    text = r'normalise=true, but samples of channel 1 differ in amplitude .* varies by 1\.\d\d\), .*; normalise=sample'
    with pytest.warns(UserWarning, match=text):
        facts = data.facts
    assert normalised_by(facts['normalisation']) == 'set'
    assert data.facts == facts, 'warnings are errors here: it comes once'


def test_columns_are_named():
    frames = [pd.DataFrame({'rest': row[0], 'pulse': row[1]}) for row in _signals(LOUD)]
    data = ArrayData(frames, np.arange(24) % 2, normalise=True, **NO_SPLIT)
    with pytest.warns(UserWarning, match="samples of channel 'pulse' differ"):
        _ = data.facts


def test_a_network_that_reads_the_amplitude_keeps_it(tmp_path):
    task = Classification(EncoderNet1d(**ENCODER, in_planes=2, amplitude=True))
    _runner(tmp_path).fit(task, _opened(_signals(LOUD)))
    assert normalised_by(task.facts['normalisation']) == 'set'
    task = Classification(EncoderNet1d(**ENCODER, in_planes=2, amplitude=True))
    with pytest.warns(UserWarning, match='Classification: the network has amplitude=True, but with normalise=sample'):
        _runner(tmp_path / 'sample').fit(task, _opened(_signals(LOUD), normalise='sample'))


def _runner(folder, **options):
    return make_trainer(folder, accelerator='cpu', enable_progress_bar=False, **{'max_epochs': 1, **options})


def test_auto_trains_as_the_word_it_chose_and_the_network_keeps_it(tmp_path):
    def run(folder, x, **words):
        torch.manual_seed(0)
        task, trainer = Classification(EncoderNet1d(**ENCODER, in_planes=2)), _runner(folder)
        trainer.fit(task, _opened(x, augmentation={'flip': [0], 'noise': 0.1}, **words))
        return task, trainer

    x = _signals(LOUD)
    task, trainer = run(tmp_path / 'auto', x)
    other, _ = run(tmp_path / 'sample', x, normalise='sample')
    assert task.facts == other.facts
    for one, two in zip(task.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    even = _signals(np.ones(24, 'f4'))  # of data that are even, it goes on as it was trained
    again, path = Classification(EncoderNet1d(**ENCODER, in_planes=2)), newest(tmp_path / 'auto')[0]
    data = _opened(even)
    _runner(tmp_path / 'on', max_epochs=2).fit(again, data, ckpt_path=path)
    assert again.facts['normalisation'] == {'by': 'sample'}
    assert 'figures' in data.train.item(0, np.random.default_rng(0))
    assert trainer.test(task, _opened(even, split={'val': 0, 'test': 0.5}), verbose=False)
    assert task.facts['normalisation'] == {'by': 'sample'}


# ---- Answers that need the amplitude ----


def _targets(kind):
    rng, logs = np.random.default_rng(5), np.log10(LOUD)
    return {
        'its logarithm': logs + rng.normal(0, 1, 24),
        'it': LOUD,
        'either sign': LOUD * np.where(np.arange(24) % 2, 1, -1),
        'the second of two': np.stack([rng.normal(size=24), -logs], 1),
        'with gaps': np.where(np.arange(24) % 4, logs, np.nan),
        'chance': rng.normal(size=24),
        'maps': _signals(LOUD, 1) + 1,
        'maps of one amplitude': _signals(np.ones(24, 'f4'), 1),
    }[kind].astype('f4')


@pytest.mark.parametrize(
    ('kind', 'by'),
    [
        ('its logarithm', 'set'),
        ('it', 'set'),
        ('either sign', 'set'),
        ('the second of two', 'set'),
        ('with gaps', 'set'),
        ('chance', 'sample'),
        ('maps', 'set'),
        ('maps of one amplitude', 'sample'),
    ],
)
def test_auto_keeps_the_amplitude_where_quantities_depend_on_it(capsys, kind, by):
    data = ArrayData(_signals(LOUD), _targets(kind), missing=kind == 'with gaps', **NO_SPLIT)
    data.setup()
    assert normalised_by(data.facts['normalisation']) == by
    said = capsys.readouterr().out
    assert ('but the targets depend on it (their ranks correlate by ' in said) == (by == 'set')
    assert f'(normalise={by})' in said
    assert ('a network with amplitude=True reads it' in said) == (by == 'set' and kind != 'maps')


def test_auto_looks_at_the_training_part_only():
    targets = np.where(np.arange(24) < 12, np.log10(LOUD), np.random.default_rng(0).normal(size=24)).astype('f4')
    x = _signals(np.tile(LOUD[::2], 2))
    data = ArrayData({'train': x[12:], 'test': x[:12]}, {'train': targets[12:], 'test': targets[:12]})
    assert normalised_by(data.facts['normalisation']) == 'sample'


@pytest.mark.parametrize(('task', 'by'), [(Reconstruction, 'set'), (Regression, 'set'), (Classification, 'sample')])
def test_auto_asks_the_task_what_numbers_are(tmp_path, task, by):
    counts = np.repeat([0, 1], 12) if task is not Regression else np.arange(24) // 4  # whole numbers, rising with it
    dense, outputs = task is Reconstruction, 2 - (task is Regression)
    own = EncoderNet1d(**{**ENCODER, 'out_length': outputs}, in_planes=2)
    data = ArrayData(_signals(LOUD), None if dense else counts, batch_size=12, **NO_SPLIT)
    trained = task(torch.nn.Conv1d(2, 2, 1) if dense else own)
    _runner(tmp_path).fit(trained, data)
    assert normalised_by(trained.facts['normalisation']) == by


def test_ranks_correlate_as_scipy_says():
    spread, rng = AmplitudeSpread(), np.random.default_rng(0)
    deviations, target = 10 ** rng.normal(0, 2, (50, 1)), rng.integers(0, 6, 50).astype(float)
    for row in deviations:
        spread.add(row)
    target += 2 * np.round(np.log10(deviations[:, 0]))
    due = stats.spearmanr(deviations[:, 0], target).statistic
    assert spread.explains(target[:, None]) == f'the targets depend on it (their ranks correlate by {due:.2f})'
    assert spread.explains(rng.normal(size=(50, 8))) is None


# ---- positions that are columns of a table ----


def _columns(samples):
    columns = Columns()
    for sample in samples:
        columns.add(sample)
    return columns.vanishing(np.concatenate([sample.reshape(len(sample), -1) for sample in samples], 1).std(1))


@pytest.mark.parametrize('word', ['auto', 'set'])
def test_columns_of_a_table_are_warned_of_once(word):
    wine = load_wine()
    data = ArrayData(wine.data.astype('f4')[:, None], wine.target, normalise=word, **NO_SPLIT)
    with pytest.warns(UserWarning, match='half of the positions of channel 0 vary .* StandardScaler'):
        facts = data.facts
    assert data.facts == facts, 'warnings are errors here: it comes once'


@pytest.mark.parametrize('options', [{'normalise': False}, {'scaled': True}])
def test_columns_that_are_scaled_or_left_alone_are_not_warned_of(options):
    wine = load_wine().data
    options = dict(options)
    x = (wine - wine.mean(0)) / wine.std(0) if options.pop('scaled', False) else wine
    data = ArrayData(x.astype('f4')[:, None], np.arange(len(x)) % 3, **options, **NO_SPLIT)
    assert data.facts


@pytest.mark.parametrize(
    ('scales', 'channel'),
    [
        ([1, 1, 1, 20, 20, 20], None),
        ([1, 1, 1, 1, 100, 100], 0),
        ([1, 1, 100, 100, 100, 100], None),  # fewer than half
        ([0, 0, 0, 0, 0, 100], None),  # a position that is constant says nothing
        ([1, 1, 1, 1, 1, 1], None),
    ],
)
def test_positions_that_vanish_in_the_scale_of_their_channel(scales, channel):
    samples = list(np.random.default_rng(0).normal(size=(50, 1, 6)) * scales)
    assert _columns(samples) == channel
    beside = [np.concatenate([np.ones((1, 6)), sample]) for sample in samples]  # a constant channel before it
    assert _columns(beside) == (None if channel is None else 1)


def test_positions_of_other_samples_say_nothing():
    table = np.random.default_rng(0).normal(size=(50, 1, 6)) * [1, 1, 1, 1, 100, 100]
    assert _columns(list(table[:7])) is None
    assert _columns([*table, table[0][:, :5]]) is None
    assert _columns([sample[..., None] for sample in table]) is None


def test_a_large_course_in_common_is_found():
    course = 300 + 50 * np.sin(np.arange(60) / 5)
    assert _columns([(course + np.random.default_rng(n).normal(size=60))[None] for n in range(20)]) == 0
