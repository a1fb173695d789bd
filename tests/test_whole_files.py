"""What is no plain file is not replaced by one."""

import errno
import os
import re
import stat
import threading

import pytest

from mdnc._files import whole_file


def half(path):
    with whole_file(path) as file:
        file.write(b'x')
        raise OSError('half')


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / 'real.bin', tmp_path / 'link.bin'
    link.symlink_to(real)
    for words in (b'new', b'newer'):
        with whole_file(link) as file:
            file.write(words)
        assert link.is_symlink()
        assert real.read_bytes() == words
    with pytest.raises(OSError, match='half'):
        half(link)
    assert real.read_bytes() == b'newer'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['link.bin', 'real.bin']


def test_a_pipe_gets_the_bytes_and_stays_a_pipe(tmp_path):
    pipe, got = tmp_path / 'pipe', []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    with whole_file(pipe) as file:
        file.write(b'12345')
        file.seek(0)  # as archives do
        file.write(b'0')
    reader.join()
    assert got == [b'02345']
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_the_null_device_is_not_replaced(tmp_path):
    null = tmp_path / 'null'
    null.symlink_to(os.devnull)
    with whole_file(null) as file:
        file.write(b'1')
    assert null.is_symlink()
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_folder_without_permission_names_the_file_and_not_a_temporary_one(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, 'Permission denied', str(tmp_path / '.values.bin.abc.mdnc-part'))

    monkeypatch.setattr('mdnc._files.tempfile.mkstemp', refuse)
    said = re.escape(f'{tmp_path / "values.bin"} could not be written (Permission denied)')
    with pytest.raises(PermissionError, match=f'^{said}$'), whole_file(tmp_path / 'values.bin'):
        pass
