"""What makes a checkpoint the best is what was said, and one of the figures that there are."""

import numpy as np
import pytest
import torch
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassRecall

from mdnc.training import ArrayData, Classification, Keeper, Regression, Split, make_trainer, train
from mdnc.training.checkpoint import FOLDER, load_archive

X = np.random.default_rng(0).standard_normal((40, 1, 16)).astype(np.float32)
ENCODER = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1]}}
TWO = {**ENCODER, 'arguments': {**ENCODER['arguments'], 'out_length': 2}}


def run(folder, keeper, task, y, epochs=4, start=None):
    torch.manual_seed(0)
    options = {'max_epochs': epochs, 'accelerator': 'cpu', 'enable_progress_bar': False}
    trainer = make_trainer(folder, callbacks=[keeper], **options)
    trainer.fit(task, ArrayData(X, y, batch_size=8, split=Split(0.4, 0)), ckpt_path=start)
    return keeper.history.rows, load_archive(folder / FOLDER / 'best.ckpt')['epoch']


@pytest.mark.parametrize(
    ('words', 'column', 'choose'),
    [
        ({}, 'val/accuracy', max),
        ({'monitor': 'val/loss'}, 'val/loss', min),
        ({'monitor': 'f1'}, 'val/f1', max),
        ({'monitor': 'train/loss', 'mode': 'max'}, 'train/loss', max),
        ({'monitor': 'recall'}, 'val/recall', max),
    ],
)
def test_the_best_is_what_was_said(words, column, choose, tmp_path):
    task = Classification(TWO, lr=0.1, metrics={'recall': MulticlassRecall(2)})
    rows, best = run(tmp_path, Keeper(**words), task, np.arange(40) % 2)
    figures = [row[column] for row in rows]
    assert figures[best] == choose(figures)
    assert choose(figures) not in figures[best + 1 :], 'of those that are as good, the last'


def test_a_single_quantity_may_be_it(tmp_path):
    task = Regression(TWO, names=['level', 'flow'], lr=0.03)
    rows, best = run(tmp_path, Keeper(monitor='rmse_flow'), task, np.stack([X.mean((1, 2)), X.std((1, 2))], 1))
    figures = [row['val/rmse_flow'] for row in rows]
    assert best == figures.index(min(figures))


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        (
            {'monitor': 'val/f2'},
            r"monitor='val/f2' is not one of val/loss, val/accuracy, val/f1, .*did you mean val/f1\?",
        ),
        ({'monitor': 'own'}, "monitor='val/own' has no known direction; give mode='min' or 'max'"),
    ],
)
def test_a_figure_that_there_is_not_is_refused_before_the_first_step(words, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        run(tmp_path, Keeper(**words), Classification(TWO, metrics={'own': MeanMetric()}), np.arange(40) % 2)
    assert not list((tmp_path / FOLDER).glob('*.ckpt'))


@pytest.mark.parametrize(
    ('words', 'error', 'text'),
    [
        ({'monitor': 3}, TypeError, 'Keeper: monitor=3'),
        ({'mode': 'max'}, ValueError, "Keeper: mode='max' .* together with a monitor"),
        ({'monitor': 'f1', 'mode': 'most'}, ValueError, "Keeper: mode='most'"),
    ],
)
def test_words_that_mean_nothing_are_refused(words, error, text):
    with pytest.raises(error, match=text):
        Keeper(**words)


def test_another_figure_begins_anew(tmp_path):
    y = np.arange(40) % 2
    run(tmp_path, Keeper(), Classification(TWO), y, epochs=2)
    start = sorted((tmp_path / FOLDER).glob('step-*.ckpt'))[-1]
    _, best = run(tmp_path, Keeper(monitor='loss'), Classification(TWO), y, epochs=3, start=start)
    assert best == 2, 'an accuracy is no loss to compare by'
    found = train('EncoderNet', (X, y), epochs=1, device='cpu', channel=4, layers=[1, 1], monitor='f1')
    assert 'test/f1' in found.figures
