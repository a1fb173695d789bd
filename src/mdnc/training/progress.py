"""Progress of a run, and the time that is left: bars on a terminal, plain lines elsewhere."""

import math
import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from mdnc.training.history import duration

_SECONDS = 30.0
_REFRESHED = 10  # times a second


def all_batches(trainer: L.Trainer) -> float:
    """Number of batches of the whole run; infinite if its end is not known."""
    epochs = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else math.inf
    steps = trainer.max_steps * trainer.accumulate_grad_batches if trainer.max_steps > 0 else math.inf
    return min(epochs * trainer.num_training_batches, steps)


def seen_batches(trainer: L.Trainer, within: int) -> float:
    """Number of batches so far, ``within`` of them in this epoch."""
    return trainer.current_epoch * trainer.num_training_batches + within


def epoch_words(trainer: L.Trainer) -> str:
    """The number of the epoch, counted from 1."""
    last = trainer.max_epochs
    return f'epoch {trainer.current_epoch + 1}' + (f' of {last}' if last is not None and last > 0 else '')


class Bar(RichProgressBar):
    """Progress bars for the run and for the epoch, with elapsed and remaining time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{'refresh_rate': _REFRESHED, **options})
        self._run: Any = None

    def _reset_progress_bar_ids(self) -> None:
        super()._reset_progress_bar_ids()
        self._run = None

    def _get_train_description(self, current_epoch: int) -> str:
        return epoch_words(self.trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        total, seen = all_batches(trainer), seen_batches(trainer, 0)
        if self.progress is not None and math.isfinite(total):
            self._run = self.progress.add_task('run', total=total, completed=int(seen))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._update(self._run, int(seen_batches(trainer, batch_idx + 1)))
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class Lines(L.Callback):
    """Prints the progress of long epochs, if the output is not a terminal."""

    def __init__(self) -> None:
        self._printed = self._started = time.monotonic()
        self._first = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._printed = self._started = time.monotonic()
        self._first = math.nan

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, seen = time.monotonic(), seen_batches(trainer, batch_idx + 1)
        if math.isnan(self._first):
            self._first, self._started = seen, now
        if now - self._printed >= _SECONDS and trainer.is_global_zero:
            place = f'{epoch_words(trainer)}: {batch_idx + 1} of {trainer.num_training_batches} batches'
            print(place + self._left(trainer, now, seen), flush=True)
            self._printed = now

    def _left(self, trainer: L.Trainer, now: float, seen: float) -> str:
        total = all_batches(trainer)
        if not math.isfinite(total) or seen <= self._first:
            return ''
        seconds = (now - self._started) / (seen - self._first) * (total - seen)
        return f', about {duration(seconds)} left'


class SlabLines:
    """Says how far a map is that is predicted slab by slab, every half minute."""

    def __init__(self) -> None:
        self._started = self._printed = time.monotonic()

    def tell(self, name: str, done: int, size: int) -> None:
        """Say that so many of ``size`` positions of the first axis are done."""
        now = time.monotonic()
        if now - self._printed < _SECONDS or done >= size:
            return
        seconds = (now - self._started) / done * (size - done)
        print(f'{name}: {done} of {size} along the first axis, about {duration(seconds)} left', flush=True)
        self._printed = now

    def begin(self) -> None:
        """A new map begins."""
        self._started = self._printed = time.monotonic()


def make_progress() -> L.Callback:
    """Bars if the standard output is a terminal, otherwise lines."""
    return Bar() if sys.stdout.isatty() else Lines()
