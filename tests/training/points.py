"""A run of seconds: points to a sum, with shuffling, augmentation and dropout, here and in processes of its own."""

import atexit
import json
import os
import signal
import sys
from pathlib import Path

import lightning as L
import torch
from torch import distributed, nn
from torchmetrics import MeanMetric

from mdnc.training.nonfinite_loss import Guard
from mdnc.training.run import best_checkpoint, make_trainer, start_point
from mdnc.training.sampler import make_loader
from mdnc.training.saving import Keeper


class Points:
    """`faults` makes single samples NaN, unreadable, mis-shaped, or deadly for the process that reads them."""

    shape = (3,)

    def __init__(self, number, seed, faults=()):
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(number, 3, generator=generator)
        self.faults = dict(faults)

    def __len__(self):
        return len(self.inputs)

    def name(self, index):
        return f'points.npy[{index}]'

    def item(self, index, rng):
        fault = self.faults.get(index)
        if fault == 'unreadable':
            raise OSError('truncated file')
        if fault == 'deadly':
            os.kill(os.getpid(), signal.SIGKILL)
        point = self.inputs[index]
        target = point.sum(0, keepdim=True)
        if fault == 'shape':
            point = point[:2]
        if fault == 'nan':
            point = point * float('nan')
        if fault == 'loss':
            target = target + torch.finfo(torch.float32).max
        if rng is not None:
            point = point + 0.1 * torch.as_tensor(rng.standard_normal(len(point)), dtype=torch.float32)
        return {'input': point, 'target': target}


class PointData(L.LightningDataModule):
    def __init__(self, train=49, workers=0, batch_size=8, faults=(), nonfinite='stop'):
        super().__init__()
        self.train = train
        self.options = {'batch_size': batch_size, 'workers': workers, 'nonfinite': nonfinite}
        self.faults = {int(index): fault for index, fault in dict(faults).items()}

    def train_dataloader(self):
        return make_loader(Points(self.train, 0, self.faults), shuffle=True, seed=3, **self.options)

    def val_dataloader(self):
        return make_loader(Points(21, 1), **self.options)

    def test_dataloader(self):
        return make_loader(Points(25, 2), **self.options)


class Sum(L.LightningModule):
    monitor = ('val/loss', 'min')

    def __init__(self, dropout=0.2, hidden=16, trace=None, draws=None):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, 1))
        self.train_metrics = nn.ModuleDict({'loss': MeanMetric()})
        self.val_metrics = nn.ModuleDict({'loss': MeanMetric()})
        self.test_metrics = nn.ModuleDict({'loss': MeanMetric()})
        self.trace = trace
        self.draws = draws

    def forward(self, points):
        return self.network(points)

    def losses(self, output, batch):
        return (output - batch['target']).square().mean(1)

    def _step(self, batch, metrics):
        losses = self.losses(self(batch['input']), batch)
        metrics['loss'].update(losses.detach()[batch['weight'] > 0])
        return losses

    def training_step(self, batch, batch_idx):
        if self.draws is not None:
            with torch.random.fork_rng(), open(self.draws, 'a') as file:
                file.write(f'{json.dumps([self.global_rank, torch.rand(3).tolist()])}\n')
        losses = self._step(batch, self.train_metrics)
        if self.trace is not None:
            place = (self.trainer.current_epoch, batch_idx, self.global_rank)
            with open(self.trace, 'a') as file:
                file.write(f'{place} {sorted(batch["index"][batch["weight"] > 0].tolist())}\n')
        return {'loss': (losses * batch['weight']).sum(), 'losses': losses.detach()}

    def validation_step(self, batch, batch_idx):
        self._step(batch, self.val_metrics)

    def test_step(self, batch, batch_idx):
        self._step(batch, self.test_metrics)

    def on_train_epoch_end(self):
        self.log('train/loss', self.train_metrics['loss'])

    def on_validation_epoch_end(self):
        self.log('val/loss', self.val_metrics['loss'])

    def on_test_epoch_end(self):
        self.log('test/loss', self.test_metrics['loss'])

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(self.trainer.estimated_stepping_batches))
        return [optimizer], [{'scheduler': schedule, 'interval': 'step'}]


class SignalAt(L.Callback):
    """Sends this process a signal after one batch, counted over the whole run."""

    def __init__(self, batch, number):
        self.batch, self.number = batch, number

    def on_train_batch_end(self, trainer, *_):
        # Only one process gets it: the others must hear of it.
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.batch and trainer.is_global_zero:
            os.kill(os.getpid(), self.number)


def train(run_dir, *, data=None, task=None, callbacks=(), minutes=10.0, **options):
    """Train or go on; gives the task and the trainer."""
    L.seed_everything(5, verbose=False)
    run_dir = Path(run_dir)
    callbacks = [Keeper(every_minutes=minutes), *callbacks]
    options = {'max_epochs': 3, 'accelerator': 'cpu', 'enable_progress_bar': False, **options}
    trainer = make_trainer(run_dir, callbacks=callbacks, **options)
    task, data = Sum(**(task or {})), PointData(**(data or {}))
    trainer.fit(task, datamodule=data, ckpt_path=start_point(run_dir))
    return task, trainer


def note_group(folder):
    """Write whether this process still belongs to a group when it ends."""
    (folder / f'group-{os.getpid()}').write_text(str(distributed.is_initialized()))


if __name__ == '__main__':
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    atexit.register(note_group, folder)  # called after what is registered later
    stop = settings.pop('signal', None)
    settings['callbacks'] = [SignalAt(*stop)] if stop else []
    settings['callbacks'] += [Guard('skip')] if settings.pop('skip', False) else []
    done, its_trainer = train(folder, **settings)
    test = PointData(**settings.get('data', {}))
    [figures] = its_trainer.test(done, datamodule=test, ckpt_path=best_checkpoint(folder), verbose=False)
    if its_trainer.is_global_zero:
        torch.save({'weights': done.state_dict(), 'test': figures['test/loss']}, folder / 'end.pt')
