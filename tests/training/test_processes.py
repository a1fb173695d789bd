"""Runs in processes of their own, killed, signalled, and split: what schedulers, disks and neighbours do to them.

About four minutes on two cores.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.training import points

from mdnc.training.checkpoint import FOLDER, newest
from mdnc.training.history import read_history
from mdnc.training.sampler import Batches

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def _start(run_dir, settings=None, **environment):
    run_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, '-W', 'ignore', '-m', points.__name__, str(run_dir), json.dumps(settings or {})]
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': f'{ROOT / "src"}{os.pathsep}{ROOT}',
        **environment,
    }
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _finish(process, seconds=240):
    try:
        text, _ = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, text


def _run(run_dir, settings=None, **environment):
    return _finish(_start(run_dir, settings, **environment))


def _end(run_dir):
    end = torch.load(run_dir / 'end.pt')
    rows = [{name: value for name, value in row.items() if name != 'seconds'} for row in read_history(run_dir)]
    return end['weights'], rows, end['test']


def _alive(process, what, seconds=120):
    until = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize('elsewhere', [False, True], ids=['TMPDIR here', 'TMPDIR on another file system'])
def test_kills_at_random_moments_never_break_a_checkpoint(tmp_path, elsewhere):
    other = Path('/dev/shm')
    if elsewhere and not other.is_dir():
        pytest.skip('this machine has no second file system')
    settings = {'minutes': 0, 'max_epochs': 30, 'task': {'hidden': 60_000}}  # 3 MB after every step
    chance = random.Random(1)
    folder = tmp_path / FOLDER
    known = 0
    for _ in range(6):
        process = _start(tmp_path, settings, TMPDIR=str(other if elsewhere else tmp_path))
        names = {path.name for path in folder.glob('step-*.ckpt')}
        _alive(process, lambda names=names: {path.name for path in folder.glob('step-*.ckpt')} - names)
        time.sleep(chance.uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        path, faults = newest(tmp_path)
        assert not faults, 'a file under a final name is broken'
        step = int(path.stem.removeprefix('step-'))
        assert step > known, 'the run went on from where it was'
        known = step
    code, text = _run(tmp_path, {**settings, 'max_epochs': known // 7 + 2, 'minutes': 10})
    assert code == 0, text
    assert not list(folder.glob('.*')), 'parts are swept'


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_saves_and_ends_with_its_code(tmp_path, number, code):
    process = _start(tmp_path, {'max_epochs': 100_000, 'data': {'workers': 2}})
    _alive(process, lambda: len(read_history(tmp_path)) > 1)
    os.killpg(process.pid, number)  # workers get it too
    done, text = _finish(process)
    assert done == code, text
    path, _ = newest(tmp_path)
    step = int(path.stem.removeprefix('step-'))
    assert torch.load(path, weights_only=True)['global_step'] == step >= 14


def _children(process):
    return [int(word) for word in Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()]


@pytest.mark.parametrize(
    ('settings', 'numbers', 'code'),
    [
        ({'data': {'workers': 1}}, [signal.SIGTERM], 143),
        ({'data': {'workers': 1}}, [signal.SIGINT, signal.SIGINT], 130),
        ({'devices': 2, 'strategy': 'ddp'}, [signal.SIGTERM], 143),
        ({'devices': 2, 'strategy': 'ddp'}, [signal.SIGINT, signal.SIGINT], 130),
    ],
    ids=['reader, SIGTERM', 'reader, twice Ctrl-C', 'neighbour, SIGTERM', 'neighbour, twice Ctrl-C'],
)
def test_a_stopped_reader_or_neighbour_does_not_hold_the_run(tmp_path, settings, numbers, code):
    process = _start(tmp_path, {'max_epochs': 100_000, **settings})
    _alive(process, lambda: len(read_history(tmp_path)) > 1)
    stopped = _children(process)[-1]
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(1)
    for number in numbers:
        os.kill(process.pid, number)
        time.sleep(1)
    done, text = _finish(process, 120)
    assert done == code, text
    state = Path(f'/proc/{stopped}/stat')
    assert not state.exists() or state.read_text().split()[2] in 'ZXR', 'it was killed, as far as anybody collects it'


def test_two_processes_train_as_one_whatever_the_last_batch(tmp_path):
    # 5 samples are batches of 2, 2 and 1: a process without a sample in each epoch, as at the end of 21 and 25.
    settings = {'task': {'dropout': 0.0}, 'accumulate_grad_batches': 2, 'data': {'train': 5, 'batch_size': 2}}
    trace = tmp_path / 'trace'
    code, text = _run(tmp_path / 'one', settings)
    assert code == 0, text
    two = {**settings, 'task': {'dropout': 0.0, 'trace': str(trace)}, 'devices': 2, 'strategy': 'ddp'}
    code, text = _run(tmp_path / 'two', two)
    assert code == 0, text
    (weights, rows, test), (weights2, rows2, test2) = _end(tmp_path / 'one'), _end(tmp_path / 'two')
    for key, value in weights.items():
        torch.testing.assert_close(weights2[key], value, rtol=1e-5, atol=1e-6)
    assert [pytest.approx(row, rel=1e-5) for row in rows] == rows2
    assert test2 == pytest.approx(test, rel=1e-6)
    lines = [line.split(') ') for line in trace.read_text().splitlines()]
    first = [index for place, indices in lines if place.startswith('(0,') for index in json.loads(indices)]
    assert sorted(first) == list(range(5))
    assert ['(0, 2, 1', '[]'] in lines, 'the second process had a batch without samples'


@pytest.mark.parametrize('stop', [9, 13], ids=['mid-epoch', 'epoch end'])
def test_two_processes_continue_to_the_bit(tmp_path, stop):
    settings = {'devices': 2, 'strategy': 'ddp', 'data': {'workers': 1}}
    code, text = _run(tmp_path / 'whole', settings)
    assert code == 0, text
    code, text = _run(tmp_path / 'stopped', {**settings, 'signal': [stop, signal.SIGTERM]})
    assert code == 143, text
    code, text = _run(tmp_path / 'stopped', settings)
    assert code == 0, text
    (weights, rows, test), (weights2, rows2, test2) = _end(tmp_path / 'whole'), _end(tmp_path / 'stopped')
    assert all(torch.equal(weights[key], weights2[key]) for key in weights)
    assert (rows, test) == (rows2, test2)


def test_a_dead_process_ends_the_run(tmp_path):
    settings = {'devices': 2, 'strategy': 'ddp', 'max_epochs': 100_000}
    process = _start(tmp_path, settings)
    _alive(process, lambda: len(read_history(tmp_path)) > 1)
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    code, text = _finish(process, 60)
    assert code != 0
    path, faults = newest(tmp_path)
    assert path is not None
    assert not faults
    assert 'another process of this run has died' in text


def test_each_process_draws_a_dropout_of_its_own(tmp_path):
    settings = {'devices': 2, 'strategy': 'ddp', 'max_epochs': 1, 'task': {'draws': str(tmp_path / 'draws')}}
    code, text = _run(tmp_path / 'run', settings)
    assert code == 0, text
    draws = [json.loads(line) for line in (tmp_path / 'draws').read_text().splitlines()]
    assert len(draws) == 2 * 7
    assert len({tuple(values) for _, values in draws}) == 14, 'no two processes and no two steps draw the same'
    groups = [path.read_text() for path in (tmp_path / 'run').glob('group-*')]
    assert groups == ['False'] * 2, 'processes have left their group before the interpreter ends'


def test_a_step_without_a_number_is_left_out_by_both_processes(tmp_path):
    late = list(Batches(49, 8, shuffle=True, seed=3))[3][0].index
    settings = {'max_epochs': 1, 'task': {'dropout': 0.0}, 'data': {'faults': {late: 'loss'}}, 'skip': True}
    for name, more in (('one', {}), ('two', {'devices': 2, 'strategy': 'ddp'})):
        code, text = _run(tmp_path / name, {**settings, **more})
        assert code == 0, text
        assert 'skipped: the training loss is NaN or Inf at epoch 0' in text
    one, two = (_end(tmp_path / name)[0] for name in ('one', 'two'))
    for key, value in one.items():
        assert value.isfinite().all()
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)


def test_jobs_started_at_once_take_folders_of_their_own(tmp_path):
    (tmp_path / 'x.yaml').write_text(_RECIPE)
    command = [sys.executable, '-W', 'ignore', '-m', 'mdnc.cli', 'fit', '--config', 'x.yaml']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT / 'src')}
    options = {
        'cwd': tmp_path,
        'env': environment,
        'stdout': subprocess.PIPE,
        'stderr': subprocess.STDOUT,
        'text': True,
    }
    jobs = [subprocess.Popen(command, **options) for _ in range(3)]
    jobs += [subprocess.Popen([*command, '--trainer.devices', '2', '--trainer.strategy', 'ddp'], **options)]
    for job in jobs:
        code, text = _finish(job)
        assert code == 0, text
    assert sorted(path.name for path in (tmp_path / 'runs').iterdir()) == ['x', 'x-2', 'x-3', 'x-4']
    assert all((path / 'checkpoints/best.ckpt').is_file() for path in (tmp_path / 'runs').iterdir())


_RECIPE = '''
model:
  class_path: Classification
  init_args: {network: {name: EncoderNet2d, arguments: {channel: 4, layers: [1, 1], out_length: 10}}}
data: {class_path: Digits, init_args: {batch_size: 256}}
trainer: {accelerator: cpu, max_epochs: 1, enable_progress_bar: false}
'''
