"""Facts about a run for its report: samples, device, versions, memory."""

import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch

try:
    import resource
except ImportError:  # Windows: memory of processors is not measured
    resource = None  # type: ignore[assignment]

from mdnc._files import whole_file
from mdnc._version import __version__
from mdnc.training.sampler import Loader
from mdnc.training.sanity_check import Sanity

FILE = 'run.json'


class RunRecord(L.Callback):
    """Writes ``run.json``: samples, device, versions, and the estimated and used memory."""

    def __init__(self) -> None:
        self._before = 0
        self._facts: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._before = _peak()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        device, data = pl_module.device, getattr(trainer, 'datamodule', None)
        named = torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type
        sanity = next((each for each in trainer.callbacks if isinstance(each, Sanity)), None)  # type: ignore[attr-defined]
        loaders = {'training': trainer.train_dataloader, 'validation': trainer.val_dataloaders}
        self._facts = {
            'mdnc': __version__,
            'torch': torch.__version__,
            'data': None if data is None else type(data).__name__,
            'samples': {name: _count(loader) for name, loader in loaders.items()},
            'input': getattr(pl_module, 'facts', {}).get('input'),
            'device': named,
            'processes': trainer.world_size,
            'precision': str(trainer.precision),
            'forecast_bytes': None if sanity is None else sanity.forecast,
        }

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        with whole_file(Path(trainer.default_root_dir) / FILE) as file:
            file.write(json.dumps({**self._facts, **self._used(pl_module)}, indent=2).encode())

    def _used(self, task: L.LightningModule) -> dict[str, Any]:
        if task.device.type == 'cuda':
            used = torch.cuda.max_memory_allocated(task.device)
            return {'used_bytes': used, 'measured': 'allocated by torch on the device'}
        if task.device.type != 'cpu' or not self._before:
            return {'used_bytes': None}
        weights = sum(parameter.nbytes for parameter in task.parameters())
        words = 'growth of the process, with data and libraries, plus the weights'
        return {'used_bytes': _peak() - self._before + weights, 'measured': words}


def _count(loader: Any) -> int | None:
    return loader.batch_sampler.samples if isinstance(loader, Loader) else None


def _peak() -> int:
    """Peak memory of this process in bytes; 0 if the system does not report it."""
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else 1024 * peak
