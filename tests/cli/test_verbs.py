"""The table of verbs: help on the core alone, errors in a sentence, exit codes."""

import importlib
import os
import subprocess
import sys

import pytest

from mdnc import cli
from mdnc.cli import VERBS, Verb, main
from mdnc.cli.recipe import find_config, recipe_names


def test_help_imports_nothing_but_torch():
    code = (
        'import sys; from mdnc.cli import main; assert main(["--help"]) == 0; '
        'heavy = {"lightning", "torchmetrics", "jsonargparse", "h5py", "matplotlib"} & set(sys.modules); '
        'assert not heavy, heavy'
    )
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, verb in VERBS.items():
        assert f'  {name} ' in done.stdout
        assert verb.help in done.stdout


@pytest.mark.parametrize('name', VERBS)
def test_every_verb_leads_somewhere(name):
    module, function = VERBS[name].entry.split(':')
    assert callable(getattr(importlib.import_module(module), function))


def test_no_verb_is_a_wish_for_help(capsys):
    assert main([]) == 0
    assert 'usage: mdnc VERB' in capsys.readouterr().out


def test_an_unknown_verb_is_answered_with_those_there_are(capsys):
    assert main(['frobnicate']) == 2
    assert "unknown verb 'frobnicate'; choose from: plan, fit, validate" in capsys.readouterr().err


def test_a_missing_package_names_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(VERBS, 'fit', Verb('no_such_package:fit', '', 'train'))
    assert main(['fit']) == 2
    assert (
        "no_such_package is not installed, and this needs it; run: pip install 'mdnc[train]'" in capsys.readouterr().err
    )


def test_errors_are_one_sentence_unless_the_traceback_is_asked_for(monkeypatch, capsys):
    def fail(argv):
        raise RuntimeError('broken')

    monkeypatch.setattr(cli, '_call', lambda name, argv: fail(argv))
    assert main(['summary']) == 1
    assert capsys.readouterr().err == 'mdnc summary: error: broken\n'
    with pytest.raises(RuntimeError, match='broken'):
        main(['summary', '--traceback'])


def test_recipes_are_found_by_name_path_and_run(tmp_path):
    assert 'digits' in recipe_names()
    assert find_config('digits').name == 'digits.yaml'
    (tmp_path / 'config.yaml').touch()
    assert find_config(str(tmp_path)) == tmp_path / 'config.yaml'
    with pytest.raises(cli.UsageError, match=r'no file, run folder or recipe has this name; recipes: .*digits'):
        find_config('nothing')


SUMMARY = 'summary EncoderNet2d --channel 4 --layers [1,1] --input_size [1,9,8]'


@pytest.mark.skipif(sys.platform == 'win32', reason='pipes of a shell')
@pytest.mark.parametrize(
    ('words', 'buffered'), [(SUMMARY, ''), (SUMMARY, '1'), ('summary unet83 --help', ''), ('export --help', '')]
)
def test_a_reader_that_goes_away_is_no_error(words, buffered):
    # It closes the pipe at once, so that what fits into every buffer meets a closed pipe, too.
    line = f'"{sys.executable}" -W ignore -m mdnc.cli {words} | (exec <&-; true); echo ${{PIPESTATUS[0]}}'
    environment = {**os.environ, 'PYTHONUNBUFFERED': buffered}
    done = subprocess.run(['bash', '-c', line], capture_output=True, text=True, check=False, env=environment)
    assert done.stderr == ''
    assert done.stdout.strip() == '141'


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='a device that is always full')
def test_an_output_that_cannot_be_written_is_said():
    line = f'"{sys.executable}" -W ignore -m mdnc.cli {SUMMARY} > /dev/full'
    done = subprocess.run(['bash', '-c', line], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'error: ' in done.stderr and 'No space left on device' in done.stderr
    assert done.stderr.count('\n') == 1
