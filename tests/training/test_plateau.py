"""Rates that come down and runs that end where a figure gets no better, also when the run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mdnc.training import ArrayData, Classification, Keeper, make_trainer, train
from mdnc.training.checkpoint import load_archive, newest
from mdnc.training.history import read_history
from mdnc.training.plateau import Plateau
from mdnc.training.run import start_point

# Lightning says so of each callback that is not there when a checkpoint is read.
pytestmark = pytest.mark.filterwarnings('ignore:Be aware that when using `ckpt_path`')
ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 1, 16)).astype('f4')
Y = RNG.integers(2, size=40)  # nothing to be learnt: the validation gets no better
NETWORK = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_length': 2}}


@pytest.mark.parametrize('better', ['min', 'max'])
def test_a_rate_comes_down_as_by_torch(better):
    sign = 1 if better == 'min' else -1
    values = [sign * value for value in (3.0, 2.0, 2.5, 2.1, 2.0, 2.0, 1.9, 1.9, 1.9, 1.9, 1.9, 1.9)]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    due = ReduceLROnPlateau(optimizer, better, factor=0.25, patience=1, threshold=0.0)
    ours = Plateau(0.25, 1)
    for value in values:
        due.step(value)
        ours.step(('val/loss', better), value)
        assert 0.5 * ours.factor == pytest.approx(optimizer.param_groups[0]['lr'])
        again = Plateau(0.25, 1)
        again.take_up(ours.state())
        ours = again
    assert ours.factor < 0.1
    assert Plateau(0.5, 1).state() == {'factor': 1.0}


class _Stop(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyError('stopped')


def _fit(folder, stop=None, callbacks=(), keeper=None, epochs=9, **words):
    torch.manual_seed(0)
    task = Classification(NETWORK, **{'lr': 0.05, 'warmup': 0.1, **words})
    data = ArrayData(X, Y, batch_size=8, split={'val': 0.3, 'test': 0})
    made = [Keeper(every_minutes=0, **(keeper or {})), *callbacks, *([_Stop(stop)] if stop else [])]
    trainer = make_trainer(folder, max_epochs=epochs, callbacks=made, enable_progress_bar=False)
    trainer.fit(task, data, ckpt_path=start_point(folder))
    rows = [{name: value for name, value in row.items() if name != 'seconds'} for row in read_history(folder)]
    return task.network.state_dict(), rows


def _same(one, other):
    return all(torch.equal(one[0][name], other[0][name]) for name in one[0]) and one[1] == other[1]


PLATEAU = {'schedule': 'plateau', 'plateau_patience': 1, 'plateau_factor': 0.5}
KEEPER = {'monitor': 'val/loss', 'patience': 3}


def test_a_plateau_lowers_the_rate_at_once_and_lasts_when_the_run_goes_on(tmp_path):
    whole = _fit(tmp_path / 'whole', keeper={'monitor': 'val/loss'}, **PLATEAU)
    rates, figures = ([row[name] for row in whole[1]] for name in ('lr', 'val/loss'))
    follower = Plateau(0.5, 1)
    for rate, figure in zip(rates, figures, strict=True):
        follower.step(('val/loss', 'min'), figure)
        assert rate == pytest.approx(0.05 * follower.factor)
    assert rates[-1] <= 0.0125, 'it came down more than once'
    for step in (9, 12, 22):  # within epochs, and at the first step after one's end
        with pytest.raises(KeyError, match='stopped'):
            _fit(tmp_path / str(step), step, keeper={'monitor': 'val/loss'}, **PLATEAU)
        assert _same(_fit(tmp_path / str(step), keeper={'monitor': 'val/loss'}, **PLATEAU), whole)


@pytest.mark.parametrize('word', [True, False], ids=['patience', 'EarlyStopping'])
def test_a_run_ends_where_its_figure_gets_no_better_and_stays_so(tmp_path, word, capsys):
    def fit(name, stop=None, patience=3):
        if word:
            return _fit(tmp_path / name, stop, keeper={**KEEPER, 'patience': patience})
        return _fit(tmp_path / name, stop, [EarlyStopping('val/loss', patience=patience)])

    whole = fit('whole')
    losses = [row['val/loss'] for row in whole[1]]
    best = int(np.argmin(losses))
    assert len(losses) == best + 4 < 9
    assert ('val/loss has not become better for 3 epochs' in capsys.readouterr().out) == word
    stop = 3 * best + 5
    with pytest.raises(KeyError, match='stopped'):
        fit('stopped', stop)
    assert _same(fit('stopped'), whole)
    assert _same(fit('whole'), whole), 'what has ended is not trained on'
    assert len(fit('whole', patience=4)[1]) == len(losses) + 1, 'unless more patience is given'


def test_another_threshold_ends_a_run_for_good(tmp_path):
    def fit():
        return _fit(tmp_path, callbacks=[EarlyStopping('val/loss', patience=50, stopping_threshold=10.0)])

    assert len(fit()[1]) == 1
    assert len(fit()[1]) == 1


def test_in_one_call():
    words = {'batch_size': 4, 'lr': 0.05, 'channel': 4, 'layers': [1, 1]}
    predictor = train('EncoderNet', (X, Y), epochs=30, patience=2, monitor='val/loss', **words)
    assert 3 <= len(predictor.history) < 30


def test_no_end_is_needed_without_a_schedule_of_known_length(tmp_path):
    rows = _fit(tmp_path / 'one', keeper=KEEPER, epochs=-1, schedule='constant', warmup=0.0)
    assert len(rows[1]) >= 4


@pytest.mark.parametrize(
    ('words', 'keeper', 'text'),
    [
        (PLATEAU, {}, r'model.schedule=plateau follows val/accuracy, but nothing is validated: give the data a split'),
        ({}, {'patience': 2}, 'keeper.patience=2 follows val/accuracy, but nothing is validated'),
    ],
)
def test_a_figure_that_never_comes_is_refused_before_the_first_step(tmp_path, words, keeper, text):
    task, data = Classification(NETWORK, **words), ArrayData(X, Y, split={'val': 0, 'test': 0})
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[Keeper(**keeper)], enable_progress_bar=False)
    with pytest.raises(ValueError, match=text):
        trainer.fit(task, data)
    assert trainer.global_step == 0
    keeper = Keeper(monitor='train/loss', **keeper)
    make_trainer(tmp_path / 'b', max_epochs=2, callbacks=[keeper], enable_progress_bar=False).fit(task, data)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *(('plateau_patience', value) for value in (-1, 1.5, 'a', None, True)),
        *(('plateau_factor', value) for value in (0, 1, -0.5, 'a', None, True)),
        *(('schedule', value) for value in ('step', None, 3)),
    ],
    ids=str,
)
def test_words_out_of_range_are_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=f'^Classification: {name}'):
        Classification(NETWORK, **{name: value})


@pytest.mark.parametrize('value', [0, -1, 1.5, 'a', True])
def test_a_patience_is_a_number_of_epochs(value):
    with pytest.raises(ValueError, match=r'^Keeper: patience='):
        Keeper(patience=value)


# ---- In processes of their own ----


def _command(*words):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT / 'src')}
    command = [
        sys.executable,
        '-c',
        'import mdnc.cli; raise SystemExit(mdnc.cli.main())',
        'fit',
        *map(str, words),
        '--keeper.every_minutes',
        '0',
    ]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _ended(process):
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text


def _left(folder):
    checkpoint = load_archive(newest(folder)[0])
    rows = [{name: value for name, value in row.items() if name != 'seconds'} for row in read_history(folder)]
    return [checkpoint['state_dict'], checkpoint['current_model_state']], rows


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_bit_with_all_that_it_follows(tmp_path):
    np.savez(tmp_path / 'points.npz', x=X, y=Y)
    recipe = {
        'model': {
            'class_path': 'Classification',
            'init_args': {'network': NETWORK, 'lr': 0.05, 'ema': 0.9, **PLATEAU},
        },
        'data': {
            'class_path': 'ArrayData',
            'init_args': {
                'inputs': str(tmp_path / 'points.npz::x'),
                'targets': str(tmp_path / 'points.npz::y'),
                'batch_size': 8,
                'split': {'val': 0.3, 'test': 0.1},
                'augmentation': {'preset': 'signal', 'mixup': 0.2},
            },
        },
        'keeper': {'monitor': 'val/loss', 'patience': 6},
        'trainer': {'max_epochs': 9, 'accelerator': 'cpu'},
    }
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    _ended(_command('--config', tmp_path / 'recipe.yaml', '--trainer.default_root_dir', whole))
    process = _command('--config', tmp_path / 'recipe.yaml', '--trainer.default_root_dir', killed)
    until = time.monotonic() + 240
    while len(read_history(killed)) < 4:
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _ended(_command('--continue', killed))
    (weights, rows), (due, expected) = _left(killed), _left(whole)
    assert rows == expected and rows[-1]['lr'] < 0.05
    assert all(torch.equal(one[name], other[name]) for one, other in zip(weights, due, strict=True) for name in one)
