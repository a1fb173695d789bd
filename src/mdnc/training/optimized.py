"""Runs with a network prepared by `mdnc.optimize`."""

from typing import Any

import lightning as L

from mdnc.ops import optimize


class Optimized(L.Callback):
    """Trains, tests and applies the task's network prepared by `mdnc.optimize`.

    From the command line: ``mdnc fit --config digits --trainer.callbacks+=mdnc.training.Optimized``. Checkpoints hold
    the same keys and values as without it, up to the rounding of training.

    Args:
        keep_memory: See `mdnc.optimize`.

    Raises:
        ValueError: At the start of a run, if the network contains no block of this library.

    Example:
        >>> from mdnc.training import Optimized, make_trainer
        >>> import tempfile
        >>> trainer = make_trainer(tempfile.mkdtemp(), callbacks=[Optimized()])
    """

    def __init__(self, keep_memory: bool = False) -> None:
        self.keep_memory = keep_memory

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        network: Any = pl_module.network
        optimize(network, keep_memory=self.keep_memory)
