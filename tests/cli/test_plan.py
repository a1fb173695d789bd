"""The verb plan: from files to a recipe that fit runs."""

import numpy as np
import pytest
import yaml

from mdnc.cli import UsageError
from mdnc.cli.plan import run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save('x.npy', rng.normal(size=(40, 2, 64)).astype(np.float32))
    np.save('y.npy', np.arange(40) % 2)
    return tmp_path


def test_files_become_a_recipe_with_reasons_a_page_and_json(folder, capsys):
    assert run(['x.npy', '--targets', 'y.npy', '--memory', '1GiB', '--dry']) == 0
    recipe = yaml.safe_load((folder / 'plan.yaml').read_text())
    assert recipe['data']['init_args']['inputs'] == 'x.npy'
    assert recipe['model']['class_path'] == 'Classification'
    assert '# a target is a whole number' in (folder / 'plan.yaml').read_text()
    assert '<h2>Choices' in (folder / 'plan.html').read_text()
    assert 'written: plan.yaml, plan.json, data.json, plan.html' in capsys.readouterr().out


def test_words_of_the_recipe_and_hours_are_followed(folder, capsys):
    words = ['--model.lr=0.5', '--data.split.val', '0.3', '--trainer.max_epochs', '4']
    assert run(['x.npy', '--targets', 'y.npy', '--memory', '1GiB', '--hours', '0.01', *words]) == 0
    recipe = yaml.safe_load((folder / 'plan.yaml').read_text())
    assert recipe['model']['init_args']['lr'] == 0.5
    assert recipe['data']['init_args']['split']['val'] == 0.3
    assert recipe['trainer']['max_epochs'] == 4
    assert 's a step' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['--memory', '1GiB'], 'no data'),
        (['gone.npy', '--memory', '1GiB'], 'gone.npy'),
        (['x.npy', '--targets', 'y.npy', '--memory', '1KiB'], 'too small: the least that works'),
        (['x.npy', '--targets', 'y.npy', '--memory', 'much'], 'number of bytes'),
        (['x.npy', '--targts', 'y.npy'], 'did you mean --targets'),
        (['x.npy', '--like', 'nowhere'], 'nowhere is neither a run'),
        (['x.npy', '--targets', 'y.npy', '--data.class_path', 'Nothing'], "no data called 'Nothing'"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_sentence(folder, argv, words):
    with pytest.raises(UsageError, match=words):
        run([*argv, '--dry'])
    assert not (folder / 'plan.yaml').exists()
