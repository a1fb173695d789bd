"""Code that is built at first use: what the cache gives back is what was put there, and nobody else's."""

import ctypes
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mdnc.ops import building, small_blocks, winograd, winograd_1d


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source that gives 7, and a compiler that writes down its calls."""
    made = tmp_path / 'seven.cpp'
    made.write_text('extern "C" int seven() { return 7; }')
    counting = tmp_path / 'c++'
    counting.write_text(f'#!/bin/sh\necho built >> {tmp_path}/log\nexec g++ "$@"\n')
    counting.chmod(0o755)
    monkeypatch.setenv('CXX', str(counting))
    monkeypatch.setenv(building.CACHE_VARIABLE, str(tmp_path / 'cache'))
    return made


def builds(source: Path) -> int:
    return len((source.parent / 'log').read_text().split())


def damages() -> dict[str, object]:
    return {
        'empty': lambda content: b'',
        'cut': lambda content: content[: len(content) // 2],
        'one bit': lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
        'longer': lambda content: content + b'\0',
    }


@pytest.mark.parametrize('how', damages())
def test_a_damaged_file_is_built_anew(how: str, source: Path):
    first = building.library(source)
    assert building.library(source) == first
    assert builds(source) == 1
    content = first.read_bytes()
    first.unlink()  # a new file, for the old one's pages may be in use
    first.write_bytes(damages()[how](content))
    again = building.library(source)
    assert builds(source) == 2
    assert ctypes.CDLL(str(again)).seven() == 7
    assert building.library(source) == again
    assert builds(source) == 2


def test_a_header_that_changed_is_built_anew(source: Path):
    header = source.with_name('number.h')
    source.write_text('#include "number.h"\nextern "C" int seven() { return NUMBER; }')
    for number in (7, 8):
        header.write_text(f'#define NUMBER {number}')
        assert ctypes.CDLL(str(building.library(source))).seven() == number
    assert builds(source) == 2
    building.library(source)
    assert builds(source) == 2


def test_a_link_in_the_cache_is_not_followed(source: Path):
    first = building.library(source)
    elsewhere = source.parent / 'elsewhere.so'
    first.rename(elsewhere)
    first.symlink_to(elsewhere)
    again = building.library(source)
    assert builds(source) == 2
    assert not again.is_symlink()
    assert elsewhere.exists()


def test_the_folder_is_the_users_alone(source: Path):
    folder = building.library(source).parent
    assert folder.stat().st_mode & 0o777 == 0o700


def test_folders_that_others_may_write_to_are_refused(source: Path, monkeypatch: pytest.MonkeyPatch):
    folder = building.library(source).parent
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match='all may write to it: name a folder of your own in MDNC_CACHE_DIR'):
        building.library(source)
    folder.chmod(0o755)
    assert building.library(source).parent == folder
    monkeypatch.setattr(building, '_owners', lambda folder: {0, os.geteuid() + 1})
    with pytest.raises(PermissionError, match='is of another user'):
        building.library(source)


@pytest.mark.parametrize('module', [winograd, winograd_1d, small_blocks], ids=lambda module: module.__name__)
def test_proofs_do_not_depend_on_the_default_dtype(module: ModuleType):
    library = module.built()
    torch.set_default_dtype(torch.float64)
    try:
        module._prove(library)
    finally:
        torch.set_default_dtype(torch.float32)
