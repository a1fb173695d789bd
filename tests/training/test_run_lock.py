"""A run's folder belongs to one process at a time; what other processes see of it is in tests/cli/test_train.py."""

import errno
import os

import pytest

from mdnc.training import run_lock as module
from mdnc.training.run_lock import LOCK, claimed, release


def test_a_claim_may_be_repeated_and_ends_with_the_last(tmp_path):
    with claimed(tmp_path / 'run'):
        with claimed(tmp_path / 'run'):
            assert str(os.getpid()) in (tmp_path / 'run' / LOCK).read_text()
        assert (tmp_path / 'run' / LOCK).is_file()
        (tmp_path / 'run' / 'kept').touch()
    assert [path.name for path in (tmp_path / 'run').iterdir()] == ['kept']
    release(tmp_path / 'run')  # what is not held is not given up


def test_a_folder_that_stayed_empty_is_removed(tmp_path):
    with pytest.raises(KeyError), claimed(tmp_path / 'run'):
        raise KeyError
    assert not (tmp_path / 'run').exists()


@pytest.mark.skipif(module.fcntl is None, reason='no locks here')
def test_a_file_that_was_removed_while_it_was_locked_is_no_claim(tmp_path, monkeypatch):
    lock, left = module.fcntl.lockf, [tmp_path / LOCK]

    def late(handle, how):
        if left:
            left.pop().unlink()  # its holder ends between our opening and our locking
        lock(handle, how)

    monkeypatch.setattr(module.fcntl, 'lockf', late)
    with claimed(tmp_path):
        assert (tmp_path / LOCK).is_file(), 'others would make one of their own, and both would train'


@pytest.mark.skipif(module.fcntl is None, reason='no locks here')
def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def refuse(handle, how):
        raise OSError(38, 'Function not implemented')

    monkeypatch.setattr(module.fcntl, 'lockf', refuse)
    with claimed(tmp_path / 'run'):
        pass


def test_a_folder_that_cannot_be_used_is_said_in_one_sentence(tmp_path, monkeypatch):
    file = tmp_path / 'file'
    file.write_text('kept')
    for place in (file, file / 'run', file / 'deeper' / 'run'):
        with pytest.raises(NotADirectoryError, match=f'{place} cannot be the folder of a run: {file} is a file'):
            module.claim(place)
    assert file.read_text() == 'kept'

    def refuse(*_):
        raise PermissionError(errno.EACCES, 'Permission denied', str(tmp_path / LOCK))

    monkeypatch.setattr(module.os, 'open', refuse)
    with pytest.raises(PermissionError, match=f'written to the run folder {tmp_path}: Permission denied$'):
        module.claim(tmp_path)
