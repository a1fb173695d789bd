"""A run of a network that `mdnc.optimize` has prepared is the run without it, up to rounding."""

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

import mdnc
from mdnc.training import ArrayData, Optimized, Regression, make_trainer
from mdnc.training.saving import Keeper

NETWORK = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_length': 1}}


def run(folder, network, callbacks=()):
    L.seed_everything(0, verbose=False)
    x = np.random.default_rng(0).standard_normal((60, 1, 32)).astype(np.float32)
    task, data = Regression(network), ArrayData(x, x.std(axis=2), batch_size=20, workers=0)
    trainer = make_trainer(folder, callbacks=[Keeper(), *callbacks], max_epochs=2, enable_progress_bar=False)
    trainer.fit(task, data)
    return task, trainer


def test_same_run_up_to_rounding(tmp_path):
    plainly, _ = run(tmp_path / 'plainly', NETWORK)
    task, trainer = run(tmp_path / 'optimized', NETWORK, [Optimized()])
    assert task.network.backend == 'optimized'
    assert trainer.callback_metrics['val/loss'] == pytest.approx(_loss(plainly), rel=1e-3)
    for mine, theirs in zip(task.network.parameters(), plainly.network.parameters(), strict=True):
        assert (mine - theirs).norm() <= 0.02 * theirs.norm() + 0.01  # AdamW enlarges rounding, see docs/scale.md
    file = next((tmp_path / 'optimized').rglob('*.ckpt'))
    again = mdnc.rebuild(torch.load(file, weights_only=True)['state_dict'])
    assert again.config == plainly.network.config


def _loss(task):
    return task.trainer.callback_metrics['val/loss'].item()


def test_a_network_of_others_is_refused(tmp_path):
    with pytest.raises(ValueError, match='optimize: Sequential holds no network and no block of mdnc'):
        run(tmp_path, nn.Sequential(nn.Flatten(), nn.Linear(32, 1)), [Optimized()])
