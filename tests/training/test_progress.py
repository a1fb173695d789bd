"""A run says how far it is, and how long it will take still."""

import io
import re

import numpy as np
import pytest
import rich

from mdnc.training import ArrayData, Regression, Split, make_trainer, progress
from mdnc.training.history import History, duration
from mdnc.training.progress import Bar, Lines, make_progress

NET = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_length': 1}}


def train(folder, callback, **options):
    x = np.random.default_rng(0).normal(size=(24, 1, 32))
    options = {'max_epochs': 3, 'accelerator': 'cpu', **options}
    trainer = make_trainer(folder, callbacks=[callback], **options)
    trainer.fit(Regression(NET), ArrayData(x, x.std((1, 2)), batch_size=8, split=Split(0, 0)))
    return trainer


@pytest.fixture
def terminal():
    yield io.StringIO()
    rich.reconfigure()


def test_bars_of_the_run_and_its_epoch_show_the_time_that_is_left(tmp_path, terminal):
    bar = Bar(console_kwargs={'file': terminal, 'force_terminal': True, 'width': 150})
    train(tmp_path, bar)
    text = re.sub(r'\x1b\[[\d;?]*[A-Za-z]', '', terminal.getvalue())
    assert 'epoch 3 of 3' in text
    last = [line for line in re.split(r'[\r\n]+', text) if line.startswith('run')][-1]
    assert re.search(r'9/9 \d:\d\d:\d\d • \d:\d\d:\d\d', last), last  # batches, time taken, time left


def test_a_run_without_an_end_has_no_bar_of_its_own(tmp_path, terminal):
    bar = Bar(console_kwargs={'file': terminal, 'force_terminal': True, 'width': 150})
    trainer = train(tmp_path, bar, max_epochs=-1, max_steps=4)
    assert progress.all_batches(trainer) == 4
    trainer.fit_loop.epoch_loop.max_steps = -1
    assert progress.all_batches(trainer) == float('inf')


def test_without_a_terminal_lines_say_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, '_SECONDS', 0.0)
    assert isinstance(make_progress(), Lines)  # pytest's output is no terminal
    train(tmp_path, Lines())
    lines = [line for line in capsys.readouterr().out.splitlines() if re.match('epoch . of', line)]
    assert lines[0] == 'epoch 1 of 3: 1 of 3 batches'
    assert re.fullmatch(r'epoch 2 of 3: 2 of 3 batches, about \d+\.\d s left', lines[4]), lines


def test_an_epochs_line_says_what_is_left(monkeypatch):
    history = History()
    history._started -= 60
    assert '1 min 0 s, about 9 min 0 s left)' in history.add(0, 5, {'val/loss': 1.0}, to_come=9)
    assert history.add(9, 50, {'val/loss': 1.0}).endswith(' s)')
    assert duration(3725) == '1 h 2 min'


def test_a_large_map_says_how_far_it_is(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 40.0, 60.0, 80.0, 200.0, 231.0, 300.0])
    monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
    lines = progress.SlabLines()
    for done in (16, 32, 48, 64):  # at 10, 40, 60 and 80 seconds
        lines.tell('scan.nii', done, 128)
    lines.begin()
    lines.tell('other.nii', 64, 128)
    lines.tell('other.nii', 128, 128)
    assert capsys.readouterr().out.splitlines() == [
        'scan.nii: 32 of 128 along the first axis, about 2 min 0 s left',
        'scan.nii: 64 of 128 along the first axis, about 1 min 20 s left',
        'other.nii: 64 of 128 along the first axis, about 31.0 s left',
    ]
