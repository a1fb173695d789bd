"""A configuration outweighs the checkpoint that a run goes on from, or is refused."""

import lightning as L
import numpy as np
import pytest
import torch
from tests.training.points import PointData, Sum

from mdnc.training import ArrayData, Classification, Segmentation, make_trainer
from mdnc.training.checkpoint import FOLDER, newest
from mdnc.training.resume_settings import set_rate

OPTIONS = {'accelerator': 'cpu', 'enable_progress_bar': False}


def test_tiles_have_the_size_that_is_configured_now(tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 1, 64)).astype(np.float32)
    task = Segmentation({'name': 'UNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_planes': 2}})
    make_trainer(tmp_path, max_epochs=1, **OPTIONS).fit(task, ArrayData(x, x[:, 0] > 0, patch=[16]))
    facts = []
    for patch, overlap in (([16], 0.25), ([32], 0.5), (None, 0.5)):
        trainer = make_trainer(tmp_path, **OPTIONS)
        data = ArrayData(x, x[:, 0] > 0, patch=patch, overlap=overlap)
        trainer.test(task, data, ckpt_path=newest(tmp_path)[0], verbose=False)
        facts.append((list(task.facts['patch']), task.facts['overlap']))
    assert facts == [([16], 0.25), ([32], 0.5), ([16], 0.25)]


class Steps(Sum):
    """Halves the learning rate after each epoch."""

    def __init__(self, rate=0.1, momentum=0.5, kind=torch.optim.SGD):
        super().__init__()
        self.options = {'lr': rate} | ({'momentum': momentum} if kind is torch.optim.SGD else {})
        self.kind = kind

    def configure_optimizers(self):
        optimizer = self.kind(self.parameters(), **self.options)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return [optimizer], [{'scheduler': schedule, 'interval': 'epoch'}]


def _go_on(folder, task, epochs):
    trainer = make_trainer(folder, max_epochs=epochs, **OPTIONS)
    start = newest(folder)[0] if (folder / FOLDER).is_dir() else None
    trainer.fit(task, datamodule=PointData(), ckpt_path=start)
    group = trainer.optimizers[0].param_groups[0]
    return group['lr'], group['momentum']


def test_a_changed_rate_stands_at_its_place_of_any_schedule(tmp_path):
    assert _go_on(tmp_path, Steps(), 1) == (0.05, 0.5)
    assert _go_on(tmp_path, Steps(), 2) == (0.025, 0.5), 'the same configuration changes nothing'
    rate, momentum = _go_on(tmp_path, Steps(0.4, 0.9), 3)
    assert (rate, momentum) == (pytest.approx(0.05), 0.9)


def test_another_optimizer_is_refused_before_it_is_filled(tmp_path):
    _go_on(tmp_path, Steps(), 1)
    with pytest.raises(ValueError, match='the run was trained with SGD, but the configuration has AdamW'):
        _go_on(tmp_path, Steps(kind=torch.optim.AdamW), 2)


def test_a_rate_without_schedule_is_set_as_it_is():
    class Trainer:
        lr_scheduler_configs = ()

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    set_rate(Trainer(), optimizer, 0, 0.3)
    assert optimizer.param_groups[0]['lr'] == pytest.approx(0.3)


class Rates(L.Callback):
    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, *_):
        self.rates.append(trainer.optimizers[0].param_groups[0]['lr'])


def test_another_schedule_holds_from_the_first_step_on(tmp_path):
    network = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_length': 2}}
    data = ArrayData(np.random.default_rng(0).standard_normal((40, 1, 16)), np.arange(40) % 2, batch_size=8)
    rates = []
    for schedule, epochs in (('cosine', 2), ('constant', 3)):
        noted = Rates()
        trainer = make_trainer(tmp_path, max_epochs=epochs, callbacks=[noted], **OPTIONS)
        start = newest(tmp_path)[0] if rates else None
        trainer.fit(Classification(network, lr=0.01, schedule=schedule), data, ckpt_path=start)
        rates.append(noted.rates)
    assert rates[0][-1] < 0.002
    assert rates[1] == [0.01] * 4
