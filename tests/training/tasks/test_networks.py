"""Networks of one's own: only classes of networks, only where they are allowed, and back with their arguments."""

import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

from mdnc import checkpoints, export
from mdnc.checkpoints import Answer
from mdnc.cli import main
from mdnc.modules import resnet
from mdnc.training import ArrayData, Classification, Regression, make_trainer
from mdnc.training.tasks.network import build_network
from mdnc.training.tasks.task import decaying_names, parameter_groups

X = np.random.default_rng(0).normal(size=(40, 1, 32)).astype('f4')
Y = np.arange(40) % 2
NET = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_length': 2}}
MINE = '''
import pathlib
from torch import nn

pathlib.Path(__file__).with_name('imported').touch()


class Net(nn.Module):
    def __init__(self, width, drop=0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(32, width), nn.Dropout(drop), nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)


def factory(**_):
    return Net(3)


class NoNet:
    def __init__(self, **_):
        pathlib.Path(__file__).with_name('called').touch()
'''


def save(task, path, data=None):
    trainer = make_trainer(path.parent, max_epochs=1, accelerator='cpu', enable_progress_bar=False)
    trainer.fit(task, data or ArrayData(X, Y))
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the working folder, that nothing has imported."""
    (tmp_path / 'mine.py').write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])  # the commands add the working folder
    yield tmp_path
    sys.modules.pop('mine', None)


def test_an_own_network_comes_back_with_its_arguments_where_it_is_allowed(mine):
    path = save(Classification({'name': 'mine.Net', 'arguments': {'width': 5, 'drop': 0.5}}), mine / 'c.ckpt')
    stored = torch.load(path, weights_only=True)['hyper_parameters']['network']
    assert stored == {'name': 'mine.Net', 'arguments': {'width': 5, 'drop': 0.5}}
    del sys.modules['mine']
    (mine / 'imported').unlink()
    for load in (Classification.load_from_checkpoint, checkpoints.load):
        for allow in ((), ['mine.Other', 'Net']):
            with pytest.raises(
                ValueError, match=r'contains mine\.Net, which is not part of mdnc: .* allow=\[.mine\.Net.\]'
            ):
                load(path, allow=allow)
    with pytest.raises(TypeError, match=r"allow='mine\.Net' must be a list of names"):
        checkpoints.load(path, allow='mine.Net')
    assert not (mine / 'imported').exists()
    task = Classification.load_from_checkpoint(path, allow=['mine.Net'])
    assert task.network.layers[1].out_features == 5
    assert task.hparams['network'] == stored, 'it can be saved and loaded again'
    net = checkpoints.load(path, allow=['mine.Net'])
    assert not net.training
    np.testing.assert_allclose(Answer(net).predict(X[:3]), task.predict(X[:3]))


def test_an_own_network_is_exported_where_it_is_allowed(mine, capsys):
    path = save(Classification({'name': 'mine.Net', 'arguments': {'width': 5}}), mine / 'c.ckpt')
    words = ['export', str(path), '--format', 'torch', '--output', 'net.pt2']
    assert main(words) != 0
    assert '--allow mine.Net' in capsys.readouterr().err
    assert main([*words, '--allow', 'mine.Net', '--check']) == 0
    assert 'of a Net only the size that it was trained on, 32' in capsys.readouterr().out
    task = Classification.load_from_checkpoint(path, allow=['mine.Net'])
    with torch.no_grad():
        y = export.formats.opened(mine / 'net.pt2').run(torch.from_numpy(X[:7]))
    np.testing.assert_allclose(y, task.predict(X[:7]), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match='only the size of its training can be checked'):
        export.check('net.pt2', checkpoints.load(path, allow=['mine.Net']), [16])


def test_another_class_of_that_name_is_noticed(mine):
    path = save(Classification({'name': 'mine.Net', 'arguments': {'width': 5}}), mine / 'c.ckpt')
    (mine / 'mine.py').write_text(MINE.replace('self.layers', 'self.other_layers'))
    del sys.modules['mine']
    sys.path_importer_cache.clear()
    with pytest.raises(ValueError, match=r'does not hold a mine\.Net as that class is now'):
        checkpoints.load(path, allow=['mine.Net'])


@pytest.mark.parametrize('name', ['mine.NoNet', 'mine.factory', 'mine.pathlib', 'os.mkdir', 'builtins.print'])
def test_what_is_no_class_of_networks_is_never_called(mine, name):
    with pytest.raises(ValueError, match=rf'network .{name}. is not a subclass of torch\.nn\.Module'):
        build_network({'name': name, 'arguments': {'path': 'owned'}})
    assert not (mine / 'called').exists()
    assert not (mine / 'owned').exists()


@pytest.mark.parametrize('key', ['network', '_instantiator', '_class_path'])
def test_a_checkpoint_calls_and_imports_nothing_that_it_names(mine, key):
    path = save(Classification(NET), mine / 'good.ckpt')
    checkpoint = torch.load(path, weights_only=True)
    evil = {'name': 'mine.NoNet', 'arguments': {'path': 'owned'}} if key == 'network' else 'mine.factory'
    checkpoint['hyper_parameters'][key] = evil
    torch.save(checkpoint, 'evil.ckpt')
    if key == 'network':
        for load in (Classification.load_from_checkpoint, checkpoints.load):
            with pytest.raises(ValueError, match='which is not part of mdnc'):
                load('evil.ckpt')
    else:
        assert Classification.load_from_checkpoint('evil.ckpt').predict(X[:2]).shape == (2, 2)
    assert not (mine / 'imported').exists()


def test_a_task_loads_from_the_folder_of_its_run(tmp_path):
    task = Classification(NET)
    save(task, tmp_path / 'run' / 'last.ckpt')
    back = Classification.load_from_checkpoint(tmp_path / 'run')
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in task.state_dict().items())


def test_a_checkpoint_of_another_kind_is_named(tmp_path):
    torch.save({'state_dict': {}}, tmp_path / 'c.ckpt')
    with pytest.raises(ValueError, match='does not say which network it holds'):
        Classification.load_from_checkpoint(tmp_path / 'c.ckpt')
    path = save(Classification(NET), tmp_path / 'good.ckpt')
    with pytest.raises(ValueError, match=r'good\.ckpt is not a checkpoint of a Regression: .*smoothing'):
        Regression.load_from_checkpoint(path)
    with pytest.raises(ValueError, match=r'not a checkpoint of a Classification: .*lrate'):
        Classification.load_from_checkpoint(path, lrate=3)
    assert Classification.load_from_checkpoint(path, lr=3).hparams['lr'] == 3


def test_a_module_whose_arguments_nobody_knows_is_given_again(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
    path = save(Classification(net), tmp_path / 'c.ckpt')
    with pytest.raises(ValueError, match='given as a module, so its arguments are not known'):
        Classification.load_from_checkpoint(path)
    other = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
    task = Classification.load_from_checkpoint(path, network=other)
    np.testing.assert_array_equal(task.predict(X), Answer(net, task.facts).predict(X))


def test_a_weighted_loss_does_not_stop_its_own_checkpoint(tmp_path):
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]), reduction='none')
    path = save(Classification(NET, loss=loss), tmp_path / 'c.ckpt')
    with pytest.warns(UserWarning, match='trained with the loss CrossEntropyLoss, .* give loss= to use the same'):
        Classification.load_from_checkpoint(path)
    back = Classification.load_from_checkpoint(path, loss=loss)
    trainer = make_trainer(tmp_path, max_epochs=2, accelerator='cpu', enable_progress_bar=False)
    trainer.fit(back, ArrayData(X, Y), ckpt_path=path)
    # Another loss, or one where there was none, is no other network.
    plain = save(Classification(NET), tmp_path / 'plain.ckpt')
    assert Classification.load_from_checkpoint(plain, loss=loss)._loss is not None


def wrapped(how, net):
    if how == 'compiled':
        return torch.compile(net, backend='eager')
    apply_activation_checkpointing(net, check_fn=lambda part: type(part).__name__.startswith('_BlockPlain'))
    return net


@pytest.mark.parametrize('when', ['before', 'after'])
@pytest.mark.parametrize('how', ['compiled', 'checkpointed'])
def test_wrappers_take_no_weight_out_of_decay(how, when):
    net = resnet.EncoderNet1d(4, [2, 2], block='plain', out_length=2)
    wanted = {id(parameter) for parameter in net.parameters() if parameter.ndim > 1}
    names = decaying_names(net)
    net = wrapped(how, net)
    assert any('_orig_mod.' in name or '_checkpoint_wrapped_module.' in name for name, _ in net.named_parameters())
    decaying, others = parameter_groups(net, names if when == 'before' else decaying_names(net), 0.1)
    assert {id(parameter) for parameter in decaying['params']} == wanted
    assert len(others['params']) == len(list(net.parameters())) - len(wanted)


@pytest.mark.parametrize('how', ['compiled', 'checkpointed'])
def test_checkpoints_of_wrapped_networks_fit_bare_ones_and_back(how, tmp_path):
    net = wrapped(how, build_network(NET))
    task = Classification(net)
    assert task.hparams['network']['name'] == 'EncoderNet1d'
    path = save(task, tmp_path / 'c.ckpt')
    bare = Classification.load_from_checkpoint(path)
    np.testing.assert_allclose(bare.predict(X), task.predict(X), rtol=1e-5)
    back = Classification.load_from_checkpoint(
        save(bare, tmp_path / 'b.ckpt'), network=wrapped(how, build_network(NET))
    )
    np.testing.assert_allclose(back.predict(X), bare.predict(X), rtol=1e-5)
