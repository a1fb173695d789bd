"""Strategies for many devices, built from a recipe's words; on a GPU also run."""

import contextlib
import signal

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from tests.training.points import SignalAt, train

from mdnc.cli import main
from mdnc.cli.recipe import read_request
from mdnc.cli.train import _Command

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning', 'ignore::UserWarning')


@pytest.fixture
def two_gpus(monkeypatch):
    """Lets Lightning believe in two devices: strategies are built, nothing is run."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda *_: 'pretended')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda *_: (9, 0))


@pytest.mark.parametrize(('name', 'strategy'), [('ddp', DDPStrategy), ('fsdp', FSDPStrategy)])
def test_strategies_are_built_from_a_recipe(two_gpus, tmp_path, name, strategy):
    words = ['--trainer.devices', '2', '--trainer.num_nodes', '3', '--trainer.precision', 'bf16-mixed']
    place = ['--trainer.default_root_dir', str(tmp_path), '--trainer.accelerator', 'cuda']
    request = read_request(['--config', 'digits', '--trainer.strategy', name, *words, *place])
    with contextlib.ExitStack() as claims:
        command = _Command('fit', request, claims)
    assert isinstance(command.trainer.strategy, strategy)
    assert (command.trainer.world_size, command.trainer.num_nodes) == (6, 3)
    assert type(command.trainer.strategy.checkpoint_io).__name__ == 'WholeFileIO'


@pytest.mark.gpu
@pytest.mark.parametrize('strategy', ['auto', 'ddp', 'fsdp'])
def test_a_recipe_runs_and_continues_on_a_gpu(tmp_path, strategy):
    words = ['--trainer.accelerator', 'cuda', '--trainer.strategy', strategy, '--trainer.precision', 'bf16-mixed']
    place = ['--trainer.default_root_dir', str(tmp_path)]
    assert main(['fit', '--config', 'digits', *place, *words, '--trainer.max_epochs', '1']) == 0
    assert main(['fit', '--continue', str(tmp_path), *words, '--trainer.max_epochs', '2']) == 0


@pytest.mark.gpu
def test_a_gpu_run_continues_to_the_bit(tmp_path):
    options = {'accelerator': 'cuda', 'deterministic': True}
    whole, _ = train(tmp_path / 'whole', **options)
    with pytest.raises(SystemExit):
        train(tmp_path / 'stopped', callbacks=[SignalAt(9, signal.SIGTERM)], **options)
    rest, _ = train(tmp_path / 'stopped', **options)
    assert all(torch.equal(whole.state_dict()[key], rest.state_dict()[key]) for key in whole.state_dict())
