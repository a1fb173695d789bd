"""A run that is stopped and continued ends with the bits, and the rows, of one that never stopped."""

import csv
import os
import signal

import pytest
import torch
from tests.training.points import SignalAt, train

from mdnc.training.checkpoint import newest
from mdnc.training.history import read_history

BATCHES = 7  # of an epoch


def _rows(run_dir):
    with (run_dir / 'metrics.csv').open() as file:
        return [{name: value for name, value in row.items() if name != 'seconds'} for row in csv.DictReader(file)]


def _end(run_dir, **options):
    task, _ = train(run_dir, **options)
    return task.state_dict(), _rows(run_dir)


def _same(one, other):
    return all(torch.equal(one[0][key], other[0][key]) for key in one[0]) and one[1] == other[1]


CASES = [
    ({}, (0, 3, 6, 9, 13, 20)),  # first batch, mid-epoch, each epoch's end
    ({'data': {'workers': 2}}, (4, 13)),
    ({'accumulate_grad_batches': 3}, (3, 6)),  # between and at optimizer steps
    ({'limit_train_batches': 5}, (4, 6)),
    ({'val_check_interval': 0.5}, (2, 4)),  # at a validation within the epoch, and after it
    ({'check_val_every_n_epoch': 2}, (8, 13)),
]


@pytest.mark.parametrize(('options', 'stops'), CASES, ids=lambda case: str(case) if isinstance(case, dict) else '')
def test_continuing_gives_the_same_bits(tmp_path, options, stops):
    never_stopped = _end(tmp_path / 'whole', **options)
    for stop in stops:
        run_dir = tmp_path / f'stopped-{stop}'
        with pytest.raises(SystemExit) as left:
            train(run_dir, callbacks=[SignalAt(stop, signal.SIGTERM)], **options)
        assert left.value.code == 143
        assert _same(_end(run_dir, **options), never_stopped), f'stopped after batch {stop}'


@pytest.mark.parametrize(('options', 'validation'), [({}, 1), ({'val_check_interval': 0.5}, 3)])
def test_a_stop_within_a_validation_repeats_the_validation(tmp_path, options, validation):
    class SignalWithin(SignalAt):
        seen = 0

        def on_train_batch_end(self, *_):
            pass

        def on_validation_batch_start(self, trainer, *_):
            if not trainer.sanity_checking:
                self.seen += 1
                if self.seen == 3 * self.batch + 2:  # the second of three batches
                    os.kill(os.getpid(), self.number)

    never_stopped = _end(tmp_path / 'whole', **options)
    with pytest.raises(SystemExit) as left:
        train(tmp_path / 'stopped', callbacks=[SignalWithin(validation, signal.SIGTERM)], **options)
    assert left.value.code == 143
    assert _same(_end(tmp_path / 'stopped', **options), never_stopped)


def test_a_stop_within_an_epoch_is_saved_there(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        train(tmp_path, callbacks=[SignalAt(9, signal.SIGINT)])
    assert left.value.code == 130
    path, _ = newest(tmp_path)
    assert path.name == 'step-000000010.ckpt'
    assert len(read_history(tmp_path)) == 1
    assert f'continue with: mdnc fit --continue {tmp_path}' in capsys.readouterr().out


def test_sigusr1_saves_and_goes_on(tmp_path):
    _, trainer = train(tmp_path, callbacks=[SignalAt(16, signal.SIGUSR1)])
    assert trainer.current_epoch == 3
    names = sorted(path.name for path in (tmp_path / 'checkpoints').iterdir())
    assert names == ['best.ckpt', 'step-000000017.ckpt', 'step-000000021.ckpt']


def test_the_clock_saves_too(tmp_path):
    saved = []

    class Watchdog(SignalAt):
        def on_train_batch_end(self, trainer, *_):
            saved.append([path.name for path in (tmp_path / 'checkpoints').glob('step-*')])

    train(tmp_path, callbacks=[Watchdog(0, 0)], minutes=0, max_epochs=1)
    assert ['step-000000001.ckpt'] in saved


def test_a_finished_run_stays_as_it_is(tmp_path):
    assert _same(_end(tmp_path), _end(tmp_path))


def test_an_epoch_without_validation_has_no_figures_of_an_older_one(tmp_path):
    train(tmp_path, max_epochs=4, check_val_every_n_epoch=2)
    assert ['val/loss' in row for row in read_history(tmp_path)] == [False, True, False, True]
