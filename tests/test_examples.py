"""The examples in docstrings run and print what they show."""

import doctest
import importlib
import tempfile
from pathlib import Path

import pytest
import torch

from mdnc.modules import resnet

SOURCES = Path(__file__).parents[1] / 'src'
MODULES = sorted(
    '.'.join(path.relative_to(SOURCES).with_suffix('').parts).removesuffix('.__init__')
    for path in SOURCES.glob('mdnc/**/*.py')
    if '>>>' in path.read_text(encoding='utf-8')
)


def _examples(module):
    yield from doctest.DocTestFinder().find(module)
    # Presets are neither classes nor functions, where doctest looks.
    presets = {name: each for name, each in vars(module).items() if isinstance(each, resnet.presets.Preset)}
    for name, preset in presets.items():
        yield doctest.DocTestParser().get_doctest(preset.__doc__, {}, name, module.__file__, 0)


# Exports take seconds each, and so does what reads the data sets of other packages.
LONG = {'mdnc.export.writer', 'mdnc.export.comparison', 'mdnc.training.data.builtin'}


@pytest.mark.parametrize('name', [pytest.param(each, marks=[pytest.mark.slow] * (each in LONG)) for each in MODULES])
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    torch.manual_seed(0)
    found = [test for test in _examples(importlib.import_module(name)) if test.examples]
    assert found
    runner, told = doctest.DocTestRunner(verbose=False), []
    for test in found:
        runner.run(test, out=told.append)
    assert not told, ''.join(told)


def test_examples_are_found_in_every_room():
    # A folder that is renamed must not take its examples along without a word.
    rooms = {name.split('.')[1] for name in MODULES}
    assert {'modules', 'contribs', 'analysis', 'checkpoints', 'cli', 'ops', 'training'} <= rooms
