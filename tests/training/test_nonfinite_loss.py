"""Losses that are no numbers, and the check of one batch before the run."""

import pytest
import torch
from tests.training.points import PointData, Sum, train
from torch import nn

from mdnc.training.history import read_history
from mdnc.training.nonfinite_loss import Guard, NonfiniteLossError
from mdnc.training.run import make_trainer
from mdnc.training.sampler import Batches

LATE = list(Batches(49, 8, shuffle=True, seed=3))[3][0].index  # a sample of the fourth batch


def test_a_loss_without_a_number_stops_the_run_and_names_the_sample(tmp_path):
    text = rf'NaN or Inf at epoch 0, step 4, batch 3; samples: points.npy\[{LATE}\]. This step was not saved'
    with pytest.raises(NonfiniteLossError, match=text):
        train(tmp_path, data={'faults': {LATE: 'loss'}})
    assert not list((tmp_path / 'checkpoints').glob('*.ckpt'))


def test_such_steps_can_be_left_out(tmp_path, capsys):
    task, _ = train(tmp_path, data={'faults': {LATE: 'loss'}}, callbacks=[Guard('skip')], max_epochs=1)
    assert f'skipped: the training loss is NaN or Inf at epoch 0, step 4, batch 3; samples: points.npy[{LATE}]' in (
        capsys.readouterr().out
    )
    assert all(bool(weight.isfinite().all()) for weight in task.parameters())


def test_only_two_words_are_legal():
    with pytest.raises(ValueError, match="nonfinite must be 'stop' or 'skip', not 'ignore'"):
        Guard('ignore')


def test_the_first_batch_is_described(tmp_path, capsys):
    train(tmp_path, max_epochs=1)
    out = capsys.readouterr().out
    assert 'network: Sequential, 81 parameters, 81 of them trainable' in out
    assert 'Total params: 81' in (tmp_path / 'network.txt').read_text()
    assert len(out.splitlines()) < 10
    assert 'data: 49 training samples in 7 batches; input (7, 3) float32' in out
    assert 'memory: 0 MiB per process' in out
    assert 'every parameter gets a gradient' in out
    assert 'epoch 0  step 7' in out
    assert len(read_history(tmp_path)) == 1


def test_the_check_changes_nothing(tmp_path):
    class Counting(Sum):
        def __init__(self):
            super().__init__()
            self.network.insert(0, nn.BatchNorm1d(3))

        def on_train_start(self):
            self.started = {key: value.clone() for key, value in self.state_dict().items()}
            self.gradients = [parameter.grad for parameter in self.parameters()]

    task = Counting()
    before = {key: value.clone() for key, value in task.state_dict().items()}
    make_trainer(tmp_path, max_epochs=1, accelerator='cpu', num_sanity_val_steps=0).fit(task, datamodule=PointData(48))
    assert all(torch.equal(before[key], task.started[key]) for key in before)
    assert task.gradients == [None] * len(task.gradients)


def test_a_parameter_that_cannot_learn_is_named(tmp_path, monkeypatch):
    whole = Sum.__init__

    def with_idle_layer(self, **options):
        whole(self, **options)
        self.idle = nn.Linear(2, 2)

    monkeypatch.setattr(Sum, '__init__', with_idle_layer)
    with pytest.raises(ValueError, match=r'no finite gradient reaches idle.weight, idle.bias \(2 of 6 parameters\)'):
        train(tmp_path)


def test_a_first_batch_without_a_finite_loss_stops_before_training(tmp_path):
    faults = dict.fromkeys(range(49), 'loss')
    with pytest.raises(ValueError, match='the loss is NaN or Inf before training, for points'):
        train(tmp_path, data={'faults': faults})
