"""Lightning's own callbacks that change weights, rates and batches: right, or refused in a sentence."""

import os
import signal
from typing import ClassVar

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from tests.training.points import PointData, SignalAt, Sum, train

from mdnc.training import ArrayData, Classification, Keeper, make_trainer
from mdnc.training.checkpoint import BEST, FOLDER, WholeFileIO, newest
from mdnc.training.history import read_history

# Lightning says so of each callback that is not there when a checkpoint is read.
pytestmark = pytest.mark.filterwarnings('ignore:Be aware that when using `ckpt_path`')
OPTIONS = {'accelerator': 'cpu', 'enable_progress_bar': False}
NETWORK = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_length': 2}}


def _data(**options):
    targets = np.arange(120) % 2
    inputs = np.random.default_rng(0).standard_normal((120, 1, 16)) + np.sin(
        np.arange(16) * (1 + targets[:, None, None])
    )
    return ArrayData(inputs.astype(np.float32), targets, **{'batch_size': 16, **options})


def _fit(folder, callbacks, epochs=3, start=None, **options):
    trainer = make_trainer(folder, max_epochs=epochs, callbacks=callbacks, **OPTIONS)
    task = Classification(NETWORK, lr=0.02)
    data = _data(**options)
    trainer.fit(task, data, ckpt_path=start)
    return trainer, task, data


def test_averaged_weights_give_one_figure_for_one_checkpoint(tmp_path):
    trainer, task, data = _fit(tmp_path, [EMAWeightAveraging(decay=0.9)])
    [at_once] = trainer.test(task, data, ckpt_path='best', verbose=False)
    figures = []
    for callbacks in ([], [EMAWeightAveraging(decay=0.9)]):
        afresh = make_trainer(tmp_path, callbacks=callbacks, **OPTIONS)
        [later] = afresh.test(Classification(NETWORK), _data(), ckpt_path=tmp_path / FOLDER / BEST, verbose=False)
        figures.append(later)
    assert figures == [at_once, at_once]
    checkpoint = WholeFileIO().load_checkpoint(tmp_path / FOLDER / BEST)
    task.load_state_dict(checkpoint['current_model_state'])
    [current] = make_trainer(tmp_path, **OPTIONS).test(task, _data(), verbose=False)
    assert current != at_once, 'the average is another network than the one that is trained'


def _averaged(folder):
    checkpoint = WholeFileIO().load_checkpoint(newest(folder)[0])
    rows = [{name: value for name, value in row.items() if name != 'seconds'} for row in read_history(folder)]
    return [checkpoint['state_dict'], checkpoint['current_model_state']], rows


class SignalWithin(SignalAt):
    """Sends it in the middle of the second validation of an epoch's end."""

    seen = 0

    def on_train_batch_end(self, *_):
        pass

    def on_validation_batch_start(self, trainer, *_):
        self.seen += not trainer.sanity_checking
        if self.seen == self.batch:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize('stop', [SignalAt(4, signal.SIGTERM), SignalAt(13, 15), SignalWithin(5, signal.SIGTERM)])
def test_averaged_weights_go_on_to_the_bit(tmp_path, stop):
    def average():
        return EMAWeightAveraging(decay=0.8)

    train(tmp_path / 'whole', callbacks=[average()])
    with pytest.raises(SystemExit):
        train(tmp_path / 'stopped', callbacks=[average(), stop])
    train(tmp_path / 'stopped', callbacks=[average()])
    (states, rows), (states2, rows2) = _averaged(tmp_path / 'whole'), _averaged(tmp_path / 'stopped')
    assert rows == rows2
    for state, state2 in zip(states, states2, strict=True):
        assert all(torch.equal(state[key], state2[key]) for key in state)
    assert not torch.equal(states[0]['network.0.weight'], states[1]['network.0.weight'])


def test_averages_that_reach_no_checkpoint_are_refused(tmp_path):
    with pytest.raises(ValueError, match='use WeightAveraging or EMAWeightAveraging'):
        train(tmp_path, callbacks=[StochasticWeightAveraging(swa_lrs=0.1)])


def test_a_run_with_averages_does_not_go_on_without(tmp_path):
    train(tmp_path, callbacks=[EMAWeightAveraging()], max_epochs=1)
    with pytest.raises(ValueError, match='the run averages its weights, and can only be continued with this callback'):
        train(tmp_path, max_epochs=2)


@pytest.mark.filterwarnings('ignore::tqdm.TqdmExperimentalWarning')
def test_a_rate_that_was_found_is_that_of_the_run_and_found_once(tmp_path, capsys):
    finder = LearningRateFinder(num_training_steps=20, min_lr=1e-4, max_lr=0.5)
    _, task, _ = _fit(tmp_path, [finder])
    rate = finder.optimal_lr.suggestion()
    assert f'found: lr {rate:.4g}' in capsys.readouterr().out
    rows = read_history(tmp_path)
    plain = tmp_path / 'plain'
    trainer = make_trainer(plain, max_epochs=3, **OPTIONS)
    trainer.fit(Classification(NETWORK, lr=rate), _data())
    assert [row['lr'] for row in rows] == [row['lr'] for row in read_history(plain)], 'the same schedule, to its end'
    assert [row['step'] for row in rows] == [6, 12, 18]
    assert task.hparams['lr'] == rate
    assert not list(tmp_path.glob('.*'))
    again = LearningRateFinder()
    _fit(tmp_path, [again], epochs=4, start=newest(tmp_path)[0])
    assert again.optimal_lr is None
    assert [row['epoch'] for row in read_history(tmp_path)] == [0, 1, 2, 3]


def test_what_a_search_counted_is_not_in_the_figures(tmp_path):
    finder = LearningRateFinder(num_training_steps=20, min_lr=1e-9, max_lr=1e-8, early_stop_threshold=None)
    _fit(tmp_path, [finder, Counting()], epochs=1)
    assert Counting.seen == [96]


class Counting(L.Callback):
    """Notes how many samples the figures of an epoch are of."""

    seen: ClassVar[list[int]] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        if number + 1 == trainer.num_training_batches:
            self.seen.append(int(module.train_metrics['loss'].weight))


def test_a_batch_size_that_was_found_is_that_of_the_run(tmp_path, capsys):
    finder = BatchSizeFinder(steps_per_trial=1, init_val=4, max_trials=3)
    trainer, task, data = _fit(tmp_path, [finder])
    assert finder.optimal_batch_size == data.batch_size == 16
    assert 'found: batch_size 16' in capsys.readouterr().out
    rows = read_history(tmp_path)
    assert [row['step'] for row in rows] == [6, 12, 18]
    assert rows[-1]['lr'] == pytest.approx(0, abs=1e-12), 'the schedule ends with the run'
    before = data.batch_size
    trainer.test(task, data, ckpt_path='best', verbose=False)
    assert data.batch_size == before, 'a test searches for nothing'
    again = BatchSizeFinder(steps_per_trial=1, init_val=4, max_trials=3)
    _, _, data = _fit(tmp_path, [again], epochs=4, start=newest(tmp_path)[0], batch_size=16)
    assert [row['epoch'] for row in read_history(tmp_path)] == [0, 1, 2, 3]


def test_a_search_within_the_training_is_refused(tmp_path):
    class Later(LearningRateFinder):
        def on_train_epoch_start(self, trainer, pl_module):
            self.lr_find(trainer, pl_module)

    with pytest.raises(ValueError, match='Later: a search within the training has no effect'):
        make_trainer(tmp_path, callbacks=[Later()])


class Unscheduled(Sum):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Weights(SignalAt):
    """Notes what the samples of each batch weigh together."""

    def __init__(self, batch=-1, number=0):
        super().__init__(batch, number)
        self.sums = []

    def on_train_batch_start(self, trainer, module, batch, number):
        self.sums.append((trainer.current_epoch, trainer.accumulate_grad_batches, float(batch['weight'].sum())))


def _scheduled(folder, weights, start=None):
    callbacks = [GradientAccumulationScheduler({0: 1, 1: 3}), weights, Keeper(every_minutes=10)]
    trainer = make_trainer(folder, max_epochs=2, callbacks=callbacks, **OPTIONS)
    trainer.fit(Unscheduled(), datamodule=PointData(), ckpt_path=start)


def test_a_schedule_of_accumulation_weighs_each_step_as_a_mean(tmp_path):
    weights = Weights()
    _scheduled(tmp_path / 'whole', weights)
    first, second = ([each for each in weights.sums if each[0] == epoch] for epoch in (0, 1))
    assert [accumulate for _, accumulate, _ in first + second] == [1] * 7 + [3] * 7
    assert [total for *_, total in first] == [pytest.approx(1)] * 7
    # 49 samples in batches of 8: steps of 24, 24 and 1 samples, each a mean; Lightning divides by 3.
    assert [total / 3 for *_, total in second] == [pytest.approx(share) for share in (*[1 / 3] * 6, 1)]
    stopped = Weights(9, signal.SIGTERM)
    with pytest.raises(SystemExit):
        _scheduled(tmp_path / 'stopped', stopped)
    rest = Weights()
    _scheduled(tmp_path / 'stopped', rest, newest(tmp_path / 'stopped')[0])
    assert rest.sums == second[3:]


@pytest.mark.parametrize(
    ('data', 'options', 'text'),
    [
        ({'batch_size': 4}, {}, 'batch_size=4, batches=13'),
        ({'train': 48}, {}, 'samples=48, batches=6'),
        ({}, {'accumulate_grad_batches': 2}, 'accumulate_grad_batches=2'),
        ({}, {'limit_train_batches': 6}, 'batches=6'),
    ],
)
def test_an_epoch_goes_on_as_it_was_begun(tmp_path, data, options, text):
    with pytest.raises(SystemExit):
        train(tmp_path, callbacks=[SignalAt(9, signal.SIGTERM)])
    with pytest.raises(
        ValueError, match=f'after 3 of 7 batches of 8 samples, and can only be continued .* not with {text}: change'
    ):
        train(tmp_path, data=data, **options)


def test_at_an_epochs_end_the_batch_may_change(tmp_path):
    train(tmp_path, max_epochs=1)
    _, trainer = train(tmp_path, max_epochs=2, data={'batch_size': 4})
    assert trainer.global_step == 7 + 13
