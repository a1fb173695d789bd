"""Every recipe starts, and reaches the figure that it states."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from mdnc.cli import main

ROOT = Path(__file__).parents[2]
# What each must reach, with room for other processors' rounding; where its figure is known, for less than a tenth more
# error. Where the whole run takes minutes, in fewer epochs.
STATED = {
    'colours': ('test/rmse', 0, 5.9),
    'denoise': ('test/rmse', 0, 10.5),
    'digits': ('test/accuracy', 0.99, 1),
    'fat': ('test/rmse', 0, 0.59),
    'gunpoint': ('test/accuracy', 0.99, 1),
    'mni152': ('test/dice', 0.944, 1),
}
EPOCHS = {'colours': 2, 'denoise': 5, 'fat': 100, 'mni152': 4}
RECIPES = sorted(path.stem for path in (ROOT / 'recipes').glob('*.yaml'))
# Packages that carry the data warn of their own dependencies while they are imported.
pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning', 'ignore::UserWarning')


def test_each_recipe_states_a_figure():
    assert sorted(STATED) == RECIPES


def test_baselines_are_those_that_were_measured():
    said, measured = {}, {}
    for name in RECIPES:
        data = yaml.safe_load((ROOT / f'recipes/{name}.yaml').read_text(encoding='utf-8'))['data']['init_args']
        for metric, others in data.get('baselines', {}).items():
            said |= {(name, metric, method): value for method, value in others.items()}
    with (ROOT / 'benchmarks/results/recipes.csv').open(newline='', encoding='utf-8') as file:
        for row in csv.DictReader(file):
            measured[row['recipe'], row['metric'], row['method']] = float(row['figure'])
    assert said
    assert said == measured


@pytest.mark.parametrize('name', RECIPES)
def test_recipes_start(name, tmp_path, capsys):
    few = ['--trainer.max_epochs', '1', '--trainer.limit_train_batches', '1', '--trainer.limit_val_batches', '0']
    place = ['--trainer.default_root_dir', str(tmp_path), '--trainer.limit_test_batches', '0']
    assert (
        main(['fit', '--config', str(ROOT / f'recipes/{name}.yaml'), *few, *place, '--trainer.accelerator', 'cpu']) == 0
    )
    assert 'every parameter gets a gradient' in capsys.readouterr().out


@pytest.mark.slow  # 4 minutes on one core, all together
@pytest.mark.parametrize('name', RECIPES)
def test_recipes_reach_what_they_state(name, tmp_path):
    place = ['--trainer.default_root_dir', str(tmp_path), '--trainer.accelerator', 'cpu']
    fewer = ['--trainer.max_epochs', str(EPOCHS[name])] if name in EPOCHS else []
    assert main(['fit', '--config', str(ROOT / f'recipes/{name}.yaml'), *place, *fewer]) == 0
    key, low, high = STATED[name]
    assert low <= json.loads((tmp_path / 'test.json').read_text())[key] <= high
    assert (tmp_path / 'results.png').stat().st_size > 10_000


def snippets():
    for page in ('data', 'tasks'):
        text = (ROOT / f'docs/{page}.md').read_text(encoding='utf-8')
        yield from ((page, part.split('```')[0]) for part in text.split('```yaml\n')[1:])


@pytest.mark.parametrize(('page', 'text'), [pytest.param(*found, id=found[0]) for found in snippets()])
def test_the_recipes_in_the_pages_are_understood(page, text, tmp_path, capsys):
    whole = {
        'model': {
            'class_path': 'Regression',
            'init_args': {'network': {'name': 'encnet12', 'arguments': {'order': 1}}},
        },
        'data': {'class_path': 'Digits'},
        'trainer': {'max_epochs': 1},
        **yaml.safe_load(text),
    }
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(whole))
    with pytest.raises(SystemExit) as left:
        main(['fit', '--config', str(tmp_path / 'recipe.yaml'), '--print_config'])
    assert not left.value.code, capsys.readouterr().err
