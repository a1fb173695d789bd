"""`mdnc fit | validate | test | predict` on arrays: results, continuing, and wrong requests."""

import csv
import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from mdnc.cli import main
from mdnc.training.checkpoint import newest

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning')

FEW = ['--trainer.max_epochs', '1', '--trainer.limit_train_batches', '1', '--trainer.limit_test_batches', '0']


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
    figures = {'metrics.csv', 'test.json', 'test.csv', 'results.png', 'report.html'}
    assert names == {'config.yaml', 'network.txt', 'run.json'} | figures | checkpoints
    with (finished / 'metrics.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['epoch'] for row in rows] == ['0', '1']
    assert {'step', 'seconds', 'lr', 'train/loss', 'val/loss', 'val/accuracy'} <= set(rows[0])
    assert 0 <= json.loads((finished / 'test.json').read_text())['test/accuracy'] <= 1
    config = yaml.safe_load((finished / 'config.yaml').read_text())
    assert config['trainer']['default_root_dir'] is None
    assert config['keeper'] == {'every_minutes': 10.0, 'keep': 2, 'monitor': None, 'mode': None, 'patience': None}


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
    run_dir = tmp_path / 'copy'
    shutil.copytree(finished, run_dir)
    bad, _ = newest(run_dir)
    bad.write_bytes(bad.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=rf'{bad.name} is damaged: it is cut short .*; skipped'):
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
    (['--model', 'Nope'], 'option "model": unknown class Nope.'),
    (['--model.network.name', 'Foo'], "unknown network 'Foo'"),
    (['--model.network.arguments.kernel_size', '4'], 'kernel_size'),
    (['--keeper.keep', '1'], 'keep a whole number of at least 2'),
    (['--ckpt_path', '/no/such.ckpt'], '--ckpt_path: /no/such.ckpt does not exist'),
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
    assert 'another network: it contains EncoderNet1d(channel=4' in err
    assert 'the configuration builds EncoderNet1d(channel=8' in err


@pytest.fixture
def small_disk():
    """A disk on which no file of more than 2 kB has room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize('name', ['out.npz', 'out.h5'])
def test_a_full_disk_leaves_no_half_of_the_predictions(finished, tmp_path, capsys, small_disk, name):
    assert main(['predict', '--config', str(finished), '--output', str(tmp_path / name)]) == 1
    err = capsys.readouterr().err
    assert f'error: the predictions {tmp_path / name} could not be written (File too large)' in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_of_a_configuration(recipe, tmp_path, capsys, small_disk):
    assert main(['fit', '--config', str(recipe), '--trainer.default_root_dir', str(tmp_path / 'run')]) == 1
    assert 'could not be written (File too large)' in capsys.readouterr().err
    assert [path.name for path in (tmp_path / 'run').iterdir()] == ['checkpoints']


def test_a_damaged_record_of_the_epochs_costs_the_curves_only(finished, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(finished, copy)
    (copy / 'metrics.csv').write_text('epoch,val/loss\n0,abc\n')
    (copy / 'test.json').unlink()
    with pytest.warns(UserWarning, match=r'metrics.csv, row 1 is damaged: .*; no curves are drawn'):
        assert main(['test', '--config', str(copy)]) == 0
    assert (copy / 'test.json').is_file()


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        (
            ['predict', '--config', 'RUN', '--output', 'out.txt'],
            '--output, --format: predictions are written to a file .h5',
        ),
        (['predict', '--config', 'RUN', '--format', 'jpeg'], "unknown format 'jpeg'"),
        (['predict', '--config', 'RUN', '--fromat', 'csv'], 'unrecognized arguments: --fromat: did you mean --format?'),
        (
            ['predict', '--config', 'RUN', '--output', 'f.npz', '--trainer.limit_predict_batches', '0'],
            'there is nothing to predict',
        ),
        (['test', '--config', 'RECIPE'], 'contains no checkpoint; give one with --ckpt_path'),
        (['test', '--config', 'RUN', '--ckpt_path', 'RUN'], 'is a folder, not a checkpoint'),
        (
            ['fit', '--config', 'RECIPE', '--trainer.accumulate_grad_batches', '-1'],
            'must be a whole number, at least 1',
        ),
        (['fit', '--config', 'RECIPE', '--trainer.max_epochs', '0'], 'max_epochs must be'),
        (['fit', '--config', 'RECIPE', '--data.nonfinite', 'Stop'], 'nonfinite'),
    ],
)
def test_a_wrong_request_is_a_sentence_and_status_2(recipe, finished, tmp_path, monkeypatch, capsys, words, text):
    monkeypatch.chdir(tmp_path)
    words = [word.replace('RUN', str(finished)).replace('RECIPE', str(recipe)) for word in words]
    assert main(words) == 2
    assert text in capsys.readouterr().err
    assert not list(tmp_path.rglob('*.npz'))


def test_a_reader_that_goes_away_ends_a_run_without_a_word(recipe, tmp_path):
    command = [
        sys.executable,
        '-W',
        'ignore',
        '-m',
        'mdnc.cli',
        'fit',
        '--config',
        str(recipe),
        '--trainer.max_epochs',
        '50',
    ]
    place = ['--trainer.default_root_dir', str(tmp_path / 'run')]
    with subprocess.Popen([*command, *place], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b''
    assert process.returncode == 141


def test_a_folder_with_a_run_is_not_trained_over(recipe, finished, capsys):
    assert main(['fit', '--config', str(recipe), '--trainer.default_root_dir', str(finished)]) == 2
    assert f'already contains a run: continue it with --continue {finished}' in capsys.readouterr().err


def test_a_run_is_the_folder_it_lies_in(recipe, finished, tmp_path, monkeypatch, capsys):
    copy = tmp_path / 'copy'
    shutil.copytree(finished, copy)
    config = yaml.safe_load((copy / 'config.yaml').read_text())
    config['trainer']['default_root_dir'] = str(finished)  # as the first version wrote it
    (copy / 'config.yaml').write_text(yaml.safe_dump(config))
    (copy / 'checkpoints/best.ckpt').unlink()
    (copy / 'checkpoints/step-000000010.ckpt').unlink()
    before = (finished / 'test.json').read_bytes()
    for place, name in ((tmp_path, 'copy'), (copy, '.'), (copy, 'config.yaml'), (tmp_path, 'copy/config.yaml')):
        monkeypatch.chdir(place)
        assert main(['test', '--config', name]) == 0
        assert json.loads((copy / 'test.json').read_text())['checkpoint'] == 'step-000000005.ckpt'
        (copy / 'test.json').unlink()
    monkeypatch.chdir(copy)
    assert main(['predict', '--config', '.']) == 0
    assert (copy / 'predictions.csv').is_file()
    assert (finished / 'test.json').read_bytes() == before
    assert not (finished / 'predictions.csv').exists()
    assert main(['fit', '--config', '.']) == 2
    assert 'already contains a run' in capsys.readouterr().err


def test_a_recipe_may_be_called_config_yaml(recipe, tmp_path, monkeypatch):
    (tmp_path / 'config.yaml').write_text(recipe.read_text())
    monkeypatch.chdir(tmp_path)
    assert main(['fit', '--config', 'config.yaml', *FEW]) == 0
    assert (tmp_path / 'runs/config/checkpoints/best.ckpt').is_file()


def test_figures_of_a_run_may_go_elsewhere_but_not_to_another_run(finished, tmp_path, capsys):
    assert main(['test', '--config', str(finished), '--trainer.default_root_dir', str(tmp_path / 'new')]) == 0
    assert (tmp_path / 'new/test.json').read_bytes() == (finished / 'test.json').read_bytes()
    shutil.copytree(finished, tmp_path / 'other')
    other = str(tmp_path / 'other')
    assert main(['test', '--config', str(finished), '--trainer.default_root_dir', other]) == 2
    assert main(['fit', '--continue', str(finished), '--trainer.default_root_dir', other]) == 2
    assert capsys.readouterr().err.count('two runs are given') == 2
    assert main(['test', '--config', str(finished), '--config', other]) == 2
    assert '--config names several runs' in capsys.readouterr().err


REFUSED = [
    (['--data.inputs', '/no/such/file.npy'], 'no file or folder is called'),
    (['--model.network.arguments.channel', '8'], 'belongs to another network'),
    (['--data.split.val', '0.3'], 'data.split is {'),
    (['--data.normalise', 'false'], "data.normalise is 'auto' in"),
    (['--data.classes', '[a,b]'], 'data.classes is None in'),
    (['--data.seed', '3'], 'data.seed is 0 in'),
    (['--seed_everything', '3'], 'seed_everything is 0 in'),
    (
        ['--model.optimizer', 'torch.optim.SGD', '--trainer.max_epochs', '4'],
        'trained with AdamW, but the configuration',
    ),
]


@pytest.mark.parametrize(('words', 'text'), REFUSED, ids=lambda value: value[0] if isinstance(value, list) else '')
def test_a_refused_continue_leaves_the_run_as_it_was(finished, tmp_path, capsys, words, text):
    copy = tmp_path / 'copy'
    shutil.copytree(finished, copy)
    before = {path: path.read_bytes() for path in copy.rglob('*') if path.is_file()}
    assert main(['fit', '--continue', str(copy), *words]) in (1, 2)
    assert text in capsys.readouterr().err
    assert {path: path.read_bytes() for path in copy.rglob('*') if path.is_file()} == before


def test_a_run_of_an_older_version_goes_on_with_what_its_network_was_trained_with(finished, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(finished, copy)
    saved = yaml.safe_load((copy / 'config.yaml').read_text())
    saved['data']['init_args']['normalise'] = True  # as its default was
    (copy / 'config.yaml').write_text(yaml.safe_dump(saved))
    before = torch.load(newest(copy)[0], weights_only=True)['hyper_parameters']['data']['normalisation']
    assert main(['fit', '--continue', str(copy), '--data.normalise', 'auto', '--trainer.max_epochs', '3']) == 0
    assert torch.load(newest(copy)[0], weights_only=True)['hyper_parameters']['data']['normalisation'] == before


def test_what_is_configured_on_the_way_is_what_the_run_does(recipe, tmp_path):
    place = ['--trainer.default_root_dir', str(tmp_path)]
    words = ['--model.schedule', 'constant', '--trainer.max_epochs', '1']
    assert main(['fit', '--config', str(recipe), *place, *words]) == 0
    words = ['--model.lr', '0.002', '--model.weight_decay', '0.3', '--trainer.max_epochs', '2']
    assert main(['fit', '--continue', str(tmp_path), *words]) == 0
    groups = torch.load(newest(tmp_path)[0], weights_only=True)['optimizer_states'][0]['param_groups']
    assert [(group['lr'], group['weight_decay']) for group in groups] == [(0.002, 0.3), (0.002, 0.0)]
    with (tmp_path / 'metrics.csv').open() as file:
        assert [float(row['lr']) for row in csv.DictReader(file)] == [0.01, 0.002]
    saved = yaml.safe_load((tmp_path / 'config.yaml').read_text())
    assert saved['model']['init_args']['lr'] == 0.002


@pytest.mark.parametrize('verb', ['validate', 'test', 'predict'])
def test_what_the_checkpoint_says_of_the_data_is_not_said_otherwise(finished, capsys, verb):
    assert main([verb, '--config', str(finished), '--data.normalise', 'false']) == 2
    assert "data.normalise is 'auto' in" in capsys.readouterr().err


@pytest.fixture
def neighbour():
    """Another process, which trains in a folder as far as others can see."""
    started = []

    def claims(folder):
        code = 'import sys; from mdnc.training.run_lock import claim; claim(sys.argv[1]); print(1, flush=True); input()'
        command = [sys.executable, '-W', 'ignore', '-c', code, str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b'1\n'
        return process

    yield claims
    for process in started:
        process.kill()
        process.communicate()


def test_a_folder_is_trained_in_by_one_process_at_a_time(recipe, finished, tmp_path, monkeypatch, capsys, neighbour):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / 'run')
    other = neighbour(tmp_path / 'run')
    neighbour(tmp_path / 'runs/bumps')
    for words in (
        ['--continue', 'run'],
        ['--config', str(recipe), '--continue', 'run'],
        ['--config', str(recipe), '--trainer.default_root_dir', 'run'],
    ):
        assert main(['fit', *words]) == 2
        assert f'run is already in use for training by process {other.pid} on ' in capsys.readouterr().err
    assert main(['fit', '--config', str(recipe), *FEW]) == 0
    assert sorted(path.name for path in (tmp_path / 'runs').iterdir()) == ['bumps', 'bumps-2']
    assert [path.name for path in (tmp_path / 'runs/bumps').iterdir()] == ['.lock']
    other.kill()
    other.communicate()
    assert main(['fit', '--continue', 'run']) == 0, 'the claim of a killed process is gone'
    assert not (tmp_path / 'run/.lock').exists()


def test_a_refused_start_leaves_no_folder(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['fit', '--config', str(recipe), '--keeper.keep', '1']) == 2
    assert not list((tmp_path / 'runs').iterdir())


def test_parts_of_killed_runs_are_swept_and_others_parts_spared(finished, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(finished, copy)
    names = ['.config.yaml.x.mdnc-part', '.metrics.csv.x.mdnc-part', '.results.png.x.mdnc-part', '.lr_find_x.ckpt']
    for name in [*names, '.predictions.h5.0.mdnc-part']:
        (copy / name).touch()
    assert main(['fit', '--continue', str(copy)]) == 0
    assert [path.name for path in copy.glob('.*')] == ['.predictions.h5.0.mdnc-part']


def test_without_a_folder_runs_are_named_after_the_recipe(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(['fit', '--config', str(recipe), *FEW]) == 0
    assert sorted(path.name for path in (tmp_path / 'runs').iterdir()) == ['bumps', 'bumps-2']


NEAR = [
    ('--confg x', 'unrecognized arguments: --confg: did you mean --config?'),
    ('--contiue x', 'did you mean --continue?'),
    ('--seed_everthing 3', 'did you mean --seed_everything?'),
    ('--trainer.max_epoch 3', 'did you mean trainer.max_epochs?'),
    ('--keeper.kep 3', 'did you mean keeper.keep?'),
    ('--model.lrr 3', "Option 'lrr' is not accepted. did you mean lr?"),
    ('--data.batchsize 3', 'did you mean batch_size?'),
    ('--data.split.vall 0.2', 'did you mean val?'),
    ('--data.augmentation.nois 0.1', 'did you mean noise?'),
    ('--model.network.arguments.chanel 3', 'Did you mean channel'),
    (
        '--model Clasification',
        'unknown class Clasification. Given value: Clasification. did you mean Classification',
    ),
]


@pytest.mark.parametrize(('words', 'text'), NEAR)
def test_an_unknown_word_is_answered_with_the_near_one(recipe, capsys, words, text):
    assert main(['fit', '--config', str(recipe), *words.split()]) == 2
    assert text in capsys.readouterr().err


WRONG = [
    ('--data.balance 1.5', 'balance=1.5 must be in [0, 1].'),
    ('--model.class_weights balance', "'balanced'. Given value: balance."),
    ('--model.class_weights [1.0]', 'class_weights=[1.0] must be 2 numbers, one per class'),
    ('--model.smoothing 1.2', 'smoothing must be in [0, 1), not 1.2.'),
    ('--model.ema 1.5', 'ema must be in (0, 1), not 1.5.'),
    ('--model.layer_decay 2', 'layer_decay must be in (0, 1], not 2.0.'),
    ('--model.schedule platau', "Expected one of 'cosine', 'constant', 'plateau'. Got value: platau."),
    ('--keeper.patience -1', 'patience=-1 must be a whole number of at least 1, or None.'),
    ('--data.normalise sampl', "one of 'auto', 'set', 'sample', 'percentiles'. Given value: sampl."),
    ('--data.tiles 0', 'tiles=0 must be an int of at least 1.'),
    ('--data.blend gauss', "Expected one of 'tent', 'gaussian'. Given value: gauss."),
    ('--data.mirror [3]', 'mirror=[3] must be a list of the spatial axes'),
    ('--data.overlap 1.0', 'overlap=1.0 must be in [0, 1).'),
    ('--data.augmentation sgnal', "sgnal is none of 'signal', 'image', 'volume'."),
    ('--data.augmentation.preset imag', "Expected one of 'signal', 'image', 'volume'. Given value: imag."),
    ('--data.augmentation.noise -1', 'noise=-1.0 must be a finite number of at least 0.'),
    ('--data.augmentation.rotation x', 'option "rotation": Expected a float. Expected a list. Given value: x.'),
]


@pytest.mark.parametrize(('words', 'text'), WRONG)
def test_a_wrong_value_is_refused_before_a_run_begins(recipe, tmp_path, monkeypatch, capsys, words, text):
    monkeypatch.chdir(tmp_path)
    assert main(['fit', '--config', str(recipe), *words.split()]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith('mdnc fit: error: ') and text in error
    assert len(error.splitlines()) == 1 and 'typing.' not in error
    assert not list(tmp_path.glob('runs/*'))


@pytest.mark.parametrize('words', [['--data.augmentation', 'signal'], ['--data.augmentation.preset', 'signal']])
def test_a_preset_of_augmentation_may_stand_alone(recipe, tmp_path, words):
    place = ['--trainer.default_root_dir', str(tmp_path), *FEW]
    assert main(['fit', '--config', str(recipe), *words, *place]) == 0
    kept = yaml.safe_load((tmp_path / 'config.yaml').read_text())['data']['init_args']['augmentation']
    assert kept == 'signal' or kept['preset'] == 'signal'


@pytest.mark.parametrize(
    ('old', 'new', 'text'),
    [
        ('max_epochs', 'max_epoch', 'did you mean trainer.max_epochs?'),
        ('lr:', 'lrr:', 'did you mean lr?'),
        ('trainer:', 'trainr:', 'did you mean trainer'),
    ],
)
def test_an_unknown_key_of_a_recipe_is_too(recipe, tmp_path, capsys, old, new, text):
    (tmp_path / 'new.yaml').write_text(recipe.read_text().replace(old, new))
    assert main(['fit', '--config', str(tmp_path / 'new.yaml')]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (
            'a: &a [x, x]\n' + ''.join(f'a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n' for n in range(1, 60)),
            'aliases expand to more',
        ),
        ('a: &a [*a]\n', 'or refer to themselves'),
        ('a: [1\n', 'is not valid YAML: while parsing'),
        (b'\xff\xfe\x00', 'is not valid YAML'),
    ],
)
def test_a_recipe_that_is_none_is_refused_at_once(tmp_path, capsys, text, words):
    text = text.replace('&a [x, x]', '&a0 [x, x]') if isinstance(text, str) else text
    (tmp_path / 'x.yaml').write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(['fit', '--config', str(tmp_path / 'x.yaml')]) == 2
    assert words in capsys.readouterr().err


def test_classes_of_the_folder_that_it_is_called_in_are_found(recipe, tmp_path):
    code = 'from mdnc.training import Classification\nclass Mine(Classification):\n    """My own."""\n'
    (tmp_path / 'own_words.py').write_text(code)
    (tmp_path / 'mine.yaml').write_text(recipe.read_text().replace('Classification', 'own_words.Mine'))
    script = 'import sys; from mdnc.cli import main; sys.exit(main(sys.argv[1:]))'
    command = [sys.executable, '-P', '-W', 'ignore', '-c', script, 'fit', '--config', 'mine.yaml', *FEW]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert 'own_words' in done.stderr and done.returncode == 2, 'where Python is told to, it looks for nothing there'
    command.remove('-P')
    done = subprocess.run(
        [*command[:4], script.replace('import sys;', 'import sys; sys.path.remove("");'), *command[5:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ('words', 'shown'),
    [
        (['--model.help', 'Segmentation'], '--model.criterion  (default: both)'),
        (['--model.help=mdnc.training.Regression'], '--model.lr  (default: 0.001)'),
        (['--data.help', 'ArrayData'], '--data.inputs  (required)'),
        (['--data.help', 'ArrayData'], '--data.split  (has arguments of its own: --data.help Split)'),
        (['--data.help', 'Split'], '--data.split.group  (default: null)  Attribute of samples that must be'),
        (['--data.help', 'Augmentation'], '--data.augmentation.'),
        (['--model.help'], 'Classification   Classification of samples'),
        (['--data.help', '--trainer.max_epochs', '3'], 'Digits'),
    ],
)
def test_the_help_on_a_class_fits_on_a_screen(capsys, words, shown):
    with pytest.raises(SystemExit):
        main(['fit', *words])
    out = capsys.readouterr().out
    assert shown in out
    assert len(out.splitlines()) < 60


def test_help_on_an_unknown_class_names_the_near_one(capsys):
    assert main(['fit', '--model.help', 'Segmentatio']) == 2
    assert 'unknown class Segmentatio: did you mean Segmentation?' in capsys.readouterr().err


@pytest.mark.parametrize('words', [[], ['--continue', '/no/such/run']])
def test_a_request_without_a_configuration_says_what_is_missing(words, capsys):
    assert main(['fit', *words]) == 2
    err = capsys.readouterr().err
    assert '--config is missing' in err or 'contains no run' in err


def test_a_run_of_a_version_that_knew_fewer_words_of_a_split_is_continued(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / 'run')
    path = tmp_path / 'run' / 'config.yaml'
    config = yaml.safe_load(path.read_text())
    split = config['data']['init_args']['split']
    config['data']['init_args']['split'] = {name: split[name] for name in ('val', 'test', 'given', 'seed')}
    path.write_text(yaml.safe_dump(config))
    for words, code in ((['--data.split.folds', '3'], 2), ([], 0)):
        assert main(['fit', '--continue', str(tmp_path / 'run'), '--trainer.max_epochs', '3', *words]) == code
    assert 'data.split' in capsys.readouterr().err
