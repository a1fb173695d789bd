"""A sample of several classes, or none: from columns of a table to names."""

import csv

import numpy as np
import pytest
import torch

import mdnc
from mdnc.training import ArrayData, MultiLabel, make_trainer, train
from mdnc.training.prediction import PredictionWriter

NET = {
    'name': 'EncoderNet1d',
    'arguments': {'channel': 8, 'layers': [1, 1], 'in_planes': 2, 'out_length': 2, 'amplitude': True},
}
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, (80, 2))
# Each class is a tone in a channel of its own.
X = RNG.normal(size=(80, 2, 32)) * 0.2 + Y[:, :, None] * np.sin(np.linspace(0, 12, 32) + RNG.uniform(0, 6, (80, 1, 1)))


@pytest.fixture
def table(tmp_path):
    np.save(tmp_path / 'x.npy', X)
    lines = ['cough,wheeze', *(f'{a},{b}' for a, b in Y)]
    (tmp_path / 'y.csv').write_text('\n'.join(lines) + '\n')
    return tmp_path


def test_columns_are_classes_that_may_be_there_together(table):
    data = ArrayData(table / 'x.npy', f'{table}/y.csv::cough,wheeze', batch_size=8)
    task = MultiLabel(NET, lr=0.02)
    writer = PredictionWriter(table / 'p.csv')
    options = {'max_epochs': 10, 'accelerator': 'cpu', 'enable_progress_bar': False}
    trainer = make_trainer(table / 'run', callbacks=[writer], **options)
    trainer.fit(task, data)
    figures = trainer.test(task, data, verbose=False)[0]
    assert {'test/f1', 'test/f1_cough', 'test/f1_wheeze', 'test/accuracy', 'test/exact_match'} <= set(figures)
    assert figures['test/accuracy'] > 0.6
    trainer.predict(task, data, return_predictions=False)
    with (table / 'p.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ['path', 'cough', 'wheeze', 'target cough', 'target wheeze']
    test = [data.test.item(index, None)['target'].tolist() for index in range(len(data.test))]
    assert [[int(row['target cough']), int(row['target wheeze'])] for row in rows] == test
    again = mdnc.load(table / 'run')
    assert again.classes == ['cough', 'wheeze']
    shares = again(X)
    assert ((shares > 0.5) == Y).mean() > 0.65
    assert again.labels(X[:20]) == [
        [name for name, share in zip(again.classes, row, strict=True) if share > 0.5] for row in shares[:20]
    ]


def test_it_is_what_such_targets_say():
    found = train('EncoderNet', (X, Y), epochs=1, device='cpu', channel=4, layers=[1, 1])
    assert 'test/exact_match' in found.figures
    assert found(X[:3]).shape == (3, 2)


def test_the_loss_is_that_of_each_class_by_itself():
    task = MultiLabel(NET, positive_weights=[1, 3])
    output, target = torch.tensor([[0.0, 2.0], [1.0, -1.0]]), torch.tensor([[1, 0], [0, 1]])
    share = output.double().sigmoid()
    each = -(target * share.log() * torch.tensor([1, 3]) + (1 - target) * (1 - share).log()).mean(1)
    torch.testing.assert_close(task.losses(output, {'target': target}), each.float())


@pytest.mark.parametrize(
    ('words', 'error', 'text'),
    [
        ({'names': ['a']}, ValueError, "names=\\['a'\\] must be 2 names"),
        ({'positive_weights': [1]}, ValueError, 'must be 2 numbers'),
        ({'network': {**NET, 'arguments': {**NET['arguments'], 'out_length': 1}}}, ValueError, 'has 1 output'),
    ],
)
def test_what_is_wrong_is_said(words, error, text):
    with pytest.raises(error, match=f'MultiLabel: .*{text}'):
        MultiLabel(**{'network': NET, **words})


@pytest.mark.parametrize('target', [None, torch.tensor([0, 1]), torch.tensor([[0, 2]] * 2), torch.rand(2, 2)])
def test_other_targets_are_refused(target):
    with pytest.raises(ValueError, match='targets must be 0 or 1 for each class'):
        MultiLabel(NET).check({'input': torch.zeros(2, 2, 32), 'target': target})
