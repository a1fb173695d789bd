"""`mdnc fit | validate | test | predict` on arrays: results, continuing, and wrong requests."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml

from mdnc.cli import main
from mdnc.training.checkpoint import newest

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning')


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    """Which of two places holds the bump? Signals of 16 values."""
    folder = tmp_path_factory.mktemp('arrays')
    chance = np.random.default_rng(0)
    targets = np.arange(60) % 2
    inputs = 0.1 * chance.standard_normal((60, 1, 16)).astype(np.float32)
    inputs[np.arange(60), 0, 4 + 8 * targets] += 1
    np.save(folder / 'inputs.npy', inputs)
    np.save(folder / 'targets.npy', targets)
    network = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_length': 2}}
    recipe = {
        'model': {'class_path': 'Classification', 'init_args': {'network': network, 'lr': 0.01}},
        'data': {
            'class_path': 'ArrayData',
            'init_args': {
                'inputs': str(folder / 'inputs.npy'),
                'targets': str(folder / 'targets.npy'),
                'split': {'val': 0.2, 'test': 0.2},
                'batch_size': 8,
            },
        },
        'trainer': {'max_epochs': 2, 'accelerator': 'cpu', 'enable_progress_bar': False},
    }
    (folder / 'bumps.yaml').write_text(yaml.safe_dump(recipe))
    return folder / 'bumps.yaml'


@pytest.fixture(scope='module')
def finished(recipe, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp('runs') / 'bumps'
    assert main(['fit', '--config', str(recipe), '--trainer.default_root_dir', str(run_dir)]) == 0
    return run_dir


def _weights(run_dir):
    return torch.load(newest(run_dir)[0], weights_only=True)['state_dict']


def test_a_run_leaves_configuration_figures_checkpoints_and_pictures(finished):
    names = {str(path.relative_to(finished)) for path in finished.rglob('*') if path.is_file()}
    checkpoints = {f'checkpoints/{name}.ckpt' for name in ('best', 'step-000000005', 'step-000000010')}
    assert names == {'config.yaml', 'metrics.csv', 'test.json', 'results.png'} | checkpoints
    with (finished / 'metrics.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['epoch'] for row in rows] == ['0', '1']
    assert {'step', 'seconds', 'lr', 'train/loss', 'val/loss', 'val/accuracy'} <= set(rows[0])
    assert 0 <= json.loads((finished / 'test.json').read_text())['test/accuracy'] <= 1
    config = yaml.safe_load((finished / 'config.yaml').read_text())
    assert config['trainer']['default_root_dir'] == str(finished)
    assert config['keeper'] == {'every_minutes': 10.0, 'keep': 2}


def test_dotted_words_override_the_recipe(recipe, capsys):
    words = ['--model.network.arguments.layers', '[1,2]', '--model.lr', '0.5', '--trainer.max_epochs=7']
    with pytest.raises(SystemExit) as left:
        main(['fit', '--config', str(recipe), *words, '--print_config'])
    assert left.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    model = shown['model']['init_args']
    assert model['network']['arguments'] == {'channel': 4, 'layers': [1, 2], 'in_planes': 1, 'out_length': 2}
    assert (model['lr'], shown['trainer']['max_epochs']) == (0.5, 7)


@pytest.mark.parametrize(
    ('words', 'shown'), [(['--help'], '--keeper.every_minutes'), (['--model.help', 'Classification'], '--model.lr')]
)
def test_help_needs_no_configuration(words, shown, capsys):
    with pytest.raises(SystemExit) as left:
        main(['fit', *words])
    assert left.value.code == 0
    assert shown in capsys.readouterr().out


def test_more_epochs_are_a_run_continued(recipe, finished, tmp_path, capsys):
    place = ['--trainer.default_root_dir', str(tmp_path)]
    assert (
        main(['fit', '--config', str(recipe), *place, '--model.schedule', 'constant', '--trainer.max_epochs', '1']) == 0
    )
    assert main(['fit', '--continue', str(tmp_path), '--trainer.max_epochs', '3']) == 0
    assert 'continuing from' in capsys.readouterr().out
    other = tmp_path / 'at-once'
    words = ['--trainer.default_root_dir', str(other), '--model.schedule', 'constant', '--trainer.max_epochs', '3']
    assert main(['fit', '--config', str(recipe), *words]) == 0
    one, two = _weights(tmp_path), _weights(other)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_run_without_checkpoint_starts_over(recipe, tmp_path, capsys):
    words = ['fit', '--config', str(recipe), '--continue', str(tmp_path), '--trainer.max_epochs', '1']
    assert main(words) == 0
    assert 'has no checkpoint yet: starting over' in capsys.readouterr().out
    assert main(words) == 0
    assert 'continuing from' in capsys.readouterr().out


def test_a_damaged_checkpoint_is_passed_over_by_name(finished, tmp_path):
    import shutil

    run_dir = tmp_path / 'copy'
    shutil.copytree(finished, run_dir)
    bad, _ = newest(run_dir)
    bad.write_bytes(bad.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=rf'{bad.name} is damaged: it is cut short .*; passed over'):
        assert main(['fit', '--continue', str(run_dir)]) == 0
    one, two = _weights(finished), _weights(run_dir)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_validate_and_test_and_predict_take_the_best_of_a_run(finished, capsys):
    before = json.loads((finished / 'test.json').read_text())
    assert main(['validate', '--config', str(finished)]) == 0
    assert 'val/accuracy' in capsys.readouterr().out
    assert main(['test', '--config', str(finished)]) == 0
    assert json.loads((finished / 'test.json').read_text()) == before
    assert main(['predict', '--config', str(finished), '--output', str(finished / 'out.npz')]) == 0
    with np.load(finished / 'out.npz') as file:
        assert file['prediction'].shape[1] == 2
    (finished / 'out.npz').unlink()


WRONG = [
    (['--model.foo', '3'], "Option 'foo' is not accepted"),
    (['--trainer.max_epoch', '3'], 'unrecognized arguments: --trainer.max_epoch 3'),
    (['--trainer.max_epochs', 'many'], 'option "trainer.max_epochs": Expected an int. Given value: many.'),
    (['--model', 'Nope'], 'option "model": there is no class called Nope.'),
    (['--model.network.name', 'Foo'], "there is no network called 'Foo'"),
    (['--model.network.arguments.kernel_size', '4'], 'kernel_size'),
    (['--keeper.keep', '1'], 'keep at least 2'),
    (['--ckpt_path', '/no/such.ckpt'], 'there is no checkpoint /no/such.ckpt'),
    (['--trainer.strategy', 'fsdp'], 'FSDP'),
]


@pytest.mark.parametrize(('words', 'text'), WRONG, ids=lambda value: ' '.join(value) if isinstance(value, list) else '')
def test_a_wrong_configuration_is_one_message_before_any_training(recipe, tmp_path, capsys, words, text):
    place = ['--trainer.default_root_dir', str(tmp_path / 'run')]
    assert main(['fit', '--config', str(recipe), *place, *words]) == 2
    out, err = capsys.readouterr()
    assert err.startswith('mdnc fit: error: ')
    assert text in err
    assert 'Traceback' not in err
    assert 'epoch' not in out
    assert not list(tmp_path.rglob('*.ckpt'))


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        (['--model.network.arguments.layers', '[1,1,1,1,1,1]'], 'is too small for 6 stages'),
        (['--data.inputs', '/no/such/file.npy'], "no file or folder is called '/no/such/file.npy'"),
    ],
)
def test_what_only_the_data_show_stops_before_training_too(recipe, tmp_path, capsys, words, text):
    place = ['--trainer.default_root_dir', str(tmp_path)]
    assert main(['fit', '--config', str(recipe), *place, *words]) == 1
    err = capsys.readouterr().err
    assert text in err
    assert 'Traceback' not in err
    assert not list(tmp_path.rglob('*.ckpt'))


def test_another_network_than_the_checkpoints_is_refused(recipe, finished, tmp_path, capsys):
    best = ['--ckpt_path', str(finished / 'checkpoints/best.ckpt')]
    words = ['--trainer.default_root_dir', str(tmp_path), '--model.network.arguments.channel', '8']
    assert main(['test', '--config', str(recipe), *words, *best]) == 1
    err = capsys.readouterr().err
    assert 'of another network: it holds EncoderNet1d(channel=4' in err
    assert 'the configuration builds EncoderNet1d(channel=8' in err


def test_a_folder_with_a_run_is_not_trained_over(recipe, finished, capsys):
    assert main(['fit', '--config', str(recipe), '--trainer.default_root_dir', str(finished)]) == 2
    assert f'holds a run already; go on with it by --continue {finished}' in capsys.readouterr().err


def test_without_a_folder_runs_are_named_after_the_recipe(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ['--trainer.max_epochs', '1', '--trainer.limit_train_batches', '1', '--trainer.limit_test_batches', '0']
    for _ in range(2):
        assert main(['fit', '--config', str(recipe), *few]) == 0
    assert sorted(path.name for path in (tmp_path / 'runs').iterdir()) == ['bumps', 'bumps-2']


@pytest.mark.parametrize('words', [[], ['--continue', '/no/such/run']])
def test_a_request_without_a_configuration_says_what_is_missing(words, capsys):
    assert main(['fit', *words]) == 2
    err = capsys.readouterr().err
    assert '--config is missing' in err or 'holds no run' in err
