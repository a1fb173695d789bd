"""Checkpoints on the disk: whole or not at all, the newest good one found, misfits refused in words."""

import resource

import lightning as L
import numpy as np
import pytest
import torch
from tests.training.points import Sum, train

from mdnc._archive import DamagedFileError, save_archive
from mdnc.training import ArrayData, Classification, make_trainer
from mdnc.training.checkpoint import BEST, FOLDER, WholeFileIO, check_fits, keep_as, newest, sweep, sweep_run
from mdnc.training.history import read_history


@pytest.fixture
def folder(tmp_path):
    (tmp_path / FOLDER).mkdir()
    for step in (10, 9, 100):
        save_archive({'state_dict': {}, 'step': step}, tmp_path / FOLDER / f'step-{step:09d}.ckpt')
    return tmp_path / FOLDER


def _spoil(path, how):
    data = bytearray(path.read_bytes())
    if how == 'flipped':
        data[len(data) // 2] ^= 1
    path.write_bytes(b'' if how == 'empty' else data[: len(data) // 2] if how == 'cut' else data)


@pytest.mark.parametrize(('how', 'words'), [('empty', 'is empty'), ('cut', 'cut short'), ('flipped', 'checksum')])
def test_the_newest_good_one_is_found_and_the_damaged_one_named(folder, how, words):
    bad = folder / 'step-000000100.ckpt'
    _spoil(bad, how)
    path, faults = newest(folder.parent)
    assert path.name == 'step-000000010.ckpt'
    [fault] = faults
    assert str(bad) in fault
    assert words in fault
    with pytest.raises(DamagedFileError, match=words):
        WholeFileIO().load_checkpoint(bad)


def test_no_checkpoint_is_a_start_and_only_damaged_ones_an_error(folder):
    assert newest(folder.parent / 'nothing') == (None, [])
    for path in folder.iterdir():
        _spoil(path, 'cut')
    with pytest.raises(DamagedFileError, match='all checkpoints of this run are damaged'):
        newest(folder.parent)


def test_a_folder_in_the_place_of_a_checkpoint_is_passed_over_by_name(folder):
    (folder / 'step-000000200.ckpt').mkdir()
    path, [fault] = newest(folder.parent)
    assert path.name == 'step-000000100.ckpt'
    assert 'step-000000200.ckpt is a folder, not a checkpoint' in fault
    with pytest.raises(DamagedFileError, match='is a folder, not a checkpoint'):
        WholeFileIO().load_checkpoint(folder / 'step-000000200.ckpt')


def test_a_torch_file_that_is_no_checkpoint_is_refused(tmp_path):
    torch.save([1], tmp_path / 'list.ckpt')
    with pytest.raises(DamagedFileError, match='not a checkpoint of a training run'):
        WholeFileIO().load_checkpoint(tmp_path / 'list.ckpt')
    with pytest.raises(FileNotFoundError, match='does not exist'):
        WholeFileIO().load_checkpoint(tmp_path / 'missing.ckpt')


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    torch.save({'state_dict': {}, 'evil': pytest.raises}, tmp_path / 'evil.ckpt')
    with pytest.raises(DamagedFileError, match='nothing else is ever loaded'):
        WholeFileIO().load_checkpoint(tmp_path / 'evil.ckpt', weights_only=False)


def test_a_full_disk_leaves_what_was_there(folder):
    path = folder / 'step-000000100.ckpt'
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            OSError, match=r'could not be written .* undamaged ones: step-000000100.ckpt, step-000000010'
        ):
            WholeFileIO().save_checkpoint({'state_dict': torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert len(list(folder.iterdir())) == 3, 'no part is left behind'


@pytest.mark.parametrize('links', [True, False])
def test_a_second_name_replaces_the_old_bearer(folder, monkeypatch, links):
    if not links:
        monkeypatch.setattr('os.link', lambda *_: (_ for _ in ()).throw(OSError('no links here')))
    for step in (9, 10):
        keep_as(folder / f'step-{step:09d}.ckpt', 'best.ckpt')
    assert WholeFileIO().load_checkpoint(folder / 'best.ckpt')['step'] == 10
    assert len(list(folder.iterdir())) == 4


def test_parts_of_killed_saves_are_swept_and_nothing_else(folder):
    (folder / '.step-000000101.ckpt.abc.mdnc-part').touch()
    (folder / 'notes.txt').touch()
    sweep(folder)
    assert sorted(path.suffix for path in folder.iterdir()) == ['.ckpt', '.ckpt', '.ckpt', '.txt']


def test_what_killed_runs_and_searches_left_beside_the_checkpoints_is_swept(tmp_path):
    for name in ('.config.yaml.x.mdnc-part', '.results.png.x.mdnc-part', '.lr_find_x.ckpt', '.scale_batch_size_x.ckpt'):
        (tmp_path / name).touch()
    (tmp_path / '.predictions.h5.0.mdnc-part').touch()
    sweep_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['.predictions.h5.0.mdnc-part']


def test_a_checkpoint_of_another_network_is_refused_with_both_named():
    small, large = Sum(hidden=16), Sum(hidden=17)
    check_fits(small, {'state_dict': small.state_dict()})
    checkpoint = {
        'state_dict': large.state_dict(),
        'hyper_parameters': {'network': {'name': 'EncoderNet2d', 'arguments': {'channel': 17}}},
    }
    text = (
        r'another network: it contains EncoderNet2d\(channel=17\), the configuration builds another network. '
        r'1 of 4 tensors fit; the first that does not fit is network.0.weight: \(17, 3\) in the checkpoint, '
        r'\(16, 3\) in'
    )
    with pytest.raises(ValueError, match=text):
        check_fits(small, checkpoint)


def test_a_run_keeps_the_best_and_the_newest_two(tmp_path):
    train(tmp_path)
    scores = [row['val/loss'] for row in read_history(tmp_path)]
    best = WholeFileIO().load_checkpoint(tmp_path / FOLDER / 'best.ckpt')
    assert best['callbacks']['Keeper']['best_score'] == pytest.approx(min(scores))
    assert best['epoch'] == scores.index(min(scores))
    assert len(list((tmp_path / FOLDER).glob('step-*.ckpt'))) == 2


class Remembering(L.Callback):
    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {'value': self.value}

    def load_state_dict(self, state):
        self.value = state['value']


def test_a_callbacks_numpy_number_is_read_back_as_a_number(tmp_path):
    train(tmp_path, callbacks=[Remembering(np.float64(0.5))], max_epochs=1)
    again = Remembering(None)
    train(tmp_path, callbacks=[again], max_epochs=1)
    assert (type(again.value), again.value) == (float, 0.5)


def test_what_no_checkpoint_gives_back_stops_the_run_before_it_trains(tmp_path):
    with pytest.raises(TypeError, match=r'checkpoint.callbacks.Remembering.value is a builtins.object, which no file'):
        train(tmp_path, callbacks=[Remembering(object())])
    assert not list((tmp_path / FOLDER).iterdir())


@pytest.mark.parametrize(
    ('task', 'data'),
    [
        ({'lr': np.float64(0.01), 'smoothing': np.float32(0.1)}, {}),
        ({}, {'classes': list(np.array(['cat', 'dog']))}),
        ({}, {'overlap': np.float64(0.5)}),
    ],
)
def test_numpy_in_a_tasks_or_datas_arguments_is_read_back(tmp_path, task, data):
    inputs, targets = np.random.default_rng(0).standard_normal((40, 1, 16)), np.arange(40) % 2
    network = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_length': 2}}
    trainer = make_trainer(tmp_path, max_epochs=1, accelerator='cpu', enable_progress_bar=False)
    trainer.fit(Classification(network, **task), ArrayData(inputs, targets, **data))
    kept = WholeFileIO().load_checkpoint(tmp_path / FOLDER / BEST)['hyper_parameters']
    assert {**kept, **kept['data']}.items() >= {**task, **data}.items()
