"""Checkpoints of a run: when they are saved, and how a run ends after a signal."""

import difflib
import math
import re
import sys
import time
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint

from mdnc.training.checkpoint import BEST, FOLDER, check_saves, keep_as, numbered, sweep, sweep_run
from mdnc.training.history import History
from mdnc.training.plateau import refuse_unseen
from mdnc.training.process_group import end_group_at_exit
from mdnc.training.process_signals import WATCHDOG, SignalAction, SignalHandler
from mdnc.training.run_lock import claim, release
from mdnc.training.seed import metric_parts, metric_sums, take_up_metrics
from mdnc.training.trainer_options import is_count

_LOST = re.compile('peer|gloo|NCCL', re.IGNORECASE)
_METRICS = 'mdnc_train_metrics'
_METRIC_PARTS = 'mdnc_train_metrics_of_processes'


class Keeper(Checkpoint):
    """Saves checkpoints at the end of each epoch, at intervals and on signals, and keeps the best one.

    SIGTERM and SIGINT save and exit with codes 143 and 130; SIGUSR1 saves and continues.

    Args:
        every_minutes: Interval between checkpoints within an epoch, in minutes; 0 saves after every step.
        keep: Number of newest checkpoints to keep, at least 2: if one is damaged, the one before is used.
        monitor: Metric that selects the best checkpoint, for example ``'val/f1'`` or ``'train/loss'``; without a
            prefix, the one of the validation. None: the default of the task.
        mode: Whether the best value is the largest, ``'max'``, or the smallest, ``'min'``; None: as usual for the
            metric.
        patience: Epochs in a row without a better figure, at least 1, after which the run ends (early stopping); an
            epoch without validation is not counted. None: it goes on to its last epoch.

    Example:
        >>> import tempfile
        >>> from mdnc.training import Keeper, make_trainer
        >>> keeper = Keeper(every_minutes=2, monitor='val/f1', mode='max')
        >>> trainer = make_trainer(tempfile.mkdtemp(), callbacks=[keeper], accelerator='cpu')
        >>> [each.monitor for each in trainer.callbacks if isinstance(each, Keeper)]
        ['val/f1']
    """

    def __init__(
        self,
        every_minutes: float = 10.0,
        keep: int = 2,
        monitor: str | None = None,
        mode: Literal['min', 'max'] | None = None,
        patience: int | None = None,
    ) -> None:
        timed = isinstance(every_minutes, Real) and not isinstance(every_minutes, bool)
        if not timed or not every_minutes >= 0 or not is_count(keep, 2):
            raise ValueError(
                'Keeper: every_minutes must be a number of at least 0 and keep a whole number of at least 2, '
                f'not {every_minutes!r} and {keep!r}'
            )
        if not isinstance(monitor, str | None) or monitor == '':
            raise TypeError(f"Keeper: monitor={monitor!r} must be the name of a metric, such as 'val/loss'")
        if mode not in (None, 'min', 'max') or (mode and not monitor):
            raise ValueError(f"Keeper: mode={mode!r} must be 'min' or 'max', together with a monitor")
        if patience is not None and not is_count(patience, 1):
            raise ValueError(f'Keeper: patience={patience!r} must be a whole number of at least 1, or None')
        self.patience = None if patience is None else int(patience)
        self._stale = 0  # epochs since the last better figure
        self.monitor = monitor if monitor is None or '/' in monitor else f'val/{monitor}'
        self.mode = mode
        self._monitor = ('val/loss', 'min')
        self.every_minutes = float(every_minutes)
        self.keep = int(keep)
        self.best_score: float | None = None
        self._before: str | None = None  # the metric of this score, in the checkpoint from which a run continues
        self.best_model_path = ''  # the attribute that Lightning reads for ckpt_path='best'
        self.history = History()
        self._signal_actions = SignalHandler()
        self._saved = time.monotonic()
        self._leaving = SignalAction.NOTHING
        self._validated = self._epoch_over = self._validating = False
        self._folder = Path()
        self._claimed = False

    def state_dict(self) -> dict[str, Any]:
        kept = {'best_score': self.best_score, 'monitor': self._monitor[0], 'stale': self._stale}
        return {**kept, 'history': self.history.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_score, self._before = state['best_score'], state.get('monitor')
        self._stale = state.get('stale', 0)
        self.history.rows = list(state['history'])

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # The first process chooses the folder if none was given.
        place = trainer.strategy.broadcast(trainer.default_root_dir)
        trainer._default_root_dir = place  # type: ignore[attr-defined]
        self._folder = Path(trainer.default_root_dir) / FOLDER
        self.best_model_path = str(self._folder / BEST)
        end_group_at_exit()
        if stage == 'fit' and trainer.is_global_zero:
            claim(trainer.default_root_dir)
            self._claimed = True
            self._folder.mkdir(parents=True, exist_ok=True)
            sweep(self._folder)
            sweep_run(Path(trainer.default_root_dir))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._release(trainer)

    def _release(self, trainer: L.Trainer) -> None:
        if self._claimed:
            self._claimed = False
            release(trainer.default_root_dir)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._monitor = self._chosen(pl_module)
        if self._before not in (None, self._monitor[0]):
            self.best_score, self._stale = None, 0  # a score of another metric cannot be compared
        if self.patience:
            refuse_unseen(f'keeper.patience={self.patience}', self._monitor[0], trainer)
            trainer.should_stop |= self._stale >= self.patience  # a run that has ended so does not go on
        check_saves(trainer)
        self._signal_actions.start(getattr(trainer.strategy.launcher, 'procs', ()))
        self.history.start()
        self._saved = time.monotonic()

    @property
    def followed(self) -> tuple[str, str]:
        """The figure that makes a checkpoint the best, and whether the ``'max'`` or ``'min'`` of it is."""
        return self._monitor

    def _chosen(self, task: Any) -> tuple[str, str]:
        """The metric that selects the best checkpoint, and whether the largest or smallest value is best."""
        own: tuple[str, str] = getattr(task, 'monitor', ('val/loss', 'min'))
        if self.monitor is None:
            return own
        known: dict[str, str | None] = getattr(task, 'figures', dict)()
        if known and self.monitor not in known:
            near = ''.join(f' did you mean {word}?' for word in difflib.get_close_matches(self.monitor, known, 1))
            raise ValueError(f'Keeper: monitor={self.monitor!r} is not one of {", ".join(known)};{near}')
        mode = self.mode or known.get(self.monitor)
        if mode is None:
            raise ValueError(f"Keeper: monitor={self.monitor!r} has no known direction; give mode='min' or 'max'")
        return self.monitor, mode

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        # Between two optimizer steps the gradients are not in a checkpoint; before a validation Lightning would
        # continue the run after it. The epoch's last batch is saved with the epoch.
        validates = isinstance(trainer.val_check_batch, int) and done % trainer.val_check_batch == 0
        if done % trainer.accumulate_grad_batches or validates or done == trainer.num_training_batches:
            return
        if time.monotonic() - self._saved >= 60 * self.every_minutes:
            self._signal_actions.add(SignalAction.SAVE)
        wish = self._signal_actions.agreed()
        if wish is not SignalAction.NOTHING:
            self._save(trainer)
        if wish > SignalAction.SAVE:
            self._leave(trainer, wish)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        if trainer.state.fn == 'fit' and not trainer.sanity_checking:
            wish = self._signal_actions.agreed()
            if wish > SignalAction.SAVE:
                self._validating = True
                self._save(trainer)
                self._leave(trainer, wish)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        figures = self._figures(trainer)
        self._record(trainer, figures, self._monitor[0])
        self._count_stale(trainer, figures)
        best = self._is_best(figures, self._monitor)
        self._epoch_over = True
        path = self._save(trainer)
        self._epoch_over = self._validated = False
        if best and trainer.is_global_zero:
            keep_as(path, BEST)
        self._leaving = max(self._leaving, self._signal_actions.agreed(now=True))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # The end of an epoch: loggers have already written it.
        if self._leaving > SignalAction.SAVE:
            self._leave(trainer, self._leaving)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._signal_actions.stop()
        if self._leaving > SignalAction.SAVE:
            self._leave(trainer, self._leaving)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._signal_actions.stop()
        self._release(trainer)
        end_group_at_exit(isinstance(exception, SystemExit))  # the same in all processes
        # The message of the collective is about sockets; the cause is nearly always a killed process.
        if trainer.world_size > 1 and isinstance(exception, RuntimeError) and _LOST.search(str(exception)):
            kept = [path.name for path in numbered(self._folder)]
            print(
                f'process {trainer.global_rank} of {trainer.world_size}: another process of this run has died; '
                f'checkpoints: {", ".join(kept) or "none"}',
                file=sys.stderr,
                flush=True,
            )

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # At the end of an epoch its metrics have been reported, but not yet reset.
        unfinished = {} if self._epoch_over else getattr(pl_module, 'train_metrics', {})
        checkpoint[_METRICS], checkpoint[_METRIC_PARTS] = metric_sums(unfinished), metric_parts(unfinished)
        if self._validating:
            # Tell Lightning that this validation has not begun, so that all of it runs when the run is continued.
            progress = checkpoint['loops']['fit_loop']['epoch_loop.val_loop.batch_progress']
            progress['total'] = {'ready': 1, 'started': 1, 'processed': 0, 'completed': 0}
            progress['current'] = dict.fromkeys(progress['current'], 0)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        sums, parts = checkpoint.get(_METRICS, {}), checkpoint.get(_METRIC_PARTS, [])
        metrics = getattr(pl_module, 'train_metrics', {})
        take_up_metrics(metrics, sums, parts, trainer.global_rank, trainer.world_size)

    def _figures(self, trainer: L.Trainer) -> dict[str, float]:
        # An epoch without validation would show the metrics of an older one.
        fresh = {name for name in trainer.callback_metrics if self._validated or not name.startswith('val/')}
        figures = {name: float(trainer.callback_metrics[name]) for name in sorted(fresh)}
        return {**figures, 'lr': trainer.optimizers[0].param_groups[0]['lr']}

    def _record(self, trainer: L.Trainer, figures: dict[str, float], first: str) -> None:
        to_come = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        line = self.history.add(trainer.current_epoch, trainer.global_step, figures, first, to_come)
        if trainer.is_global_zero:
            self.history.write(Path(trainer.default_root_dir))
            print(line, flush=True)

    def _count_stale(self, trainer: L.Trainer, figures: dict[str, float]) -> None:
        name, mode = self._monitor
        if name not in figures:
            return
        sign = 1 if mode == 'min' else -1
        better = self.best_score is None or sign * figures[name] < sign * self.best_score
        self._stale = 0 if better else self._stale + 1
        if self.patience and self._stale >= self.patience:
            trainer.should_stop = True
            if trainer.is_global_zero:
                print(f'{name} has not become better for {self._stale} epochs: the run ends', flush=True)

    def _is_best(self, figures: dict[str, float], monitor: tuple[str, str]) -> bool:
        name, mode = monitor
        score = figures.get(name, math.nan)
        if math.isnan(score):  # as for targets that are all unknown
            return self.best_score is None  # without a score, the newest is the best
        sign = 1 if mode == 'min' else -1
        if self.best_score is not None and not sign * score <= sign * self.best_score:
            return False
        self.best_score = score
        return True

    def _save(self, trainer: L.Trainer) -> Path:
        path = self._folder / f'step-{trainer.global_step:09d}.ckpt'
        WATCHDOG.begin('saving')
        trainer.save_checkpoint(path)
        WATCHDOG.begin('stepping')
        self._saved = time.monotonic()
        if trainer.is_global_zero:
            for old in numbered(self._folder)[self.keep :]:
                old.unlink(missing_ok=True)
        return path

    def _leave(self, trainer: L.Trainer, wish: SignalAction) -> None:
        self._signal_actions.stop()
        if trainer.is_global_zero:
            print(f'stopped and saved; continue with: mdnc fit --continue {trainer.default_root_dir}', flush=True)
        # Lightning kills the first process when one that it has started exits with a code other than 0.
        own = isinstance(trainer._accelerator_connector.cluster_environment, LightningEnvironment)
        raise SystemExit(0 if own and not trainer.is_global_zero else wish.exit_code)
