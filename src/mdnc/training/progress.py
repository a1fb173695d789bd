"""Signs of life: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

_SECONDS = 30.0


class Lines(L.Callback):
    """Prints how far a long epoch has come, where there is no terminal for a bar."""

    def __init__(self) -> None:
        self._printed = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._printed >= _SECONDS and trainer.is_global_zero:
            print(
                f'epoch {trainer.current_epoch}: {batch_idx + 1} of {trainer.num_training_batches} batches', flush=True
            )
            self._printed = time.monotonic()


def make_progress() -> L.Callback:
    """The bar or the lines, whichever the standard output can show."""
    return RichProgressBar() if sys.stdout.isatty() else Lines()
