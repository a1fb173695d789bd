"""A run from start to end: trainer → fit → test → report."""

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar

from mdnc._files import whole_file
from mdnc.training.checkpoint import BEST, FOLDER, WholeFileIO, newest
from mdnc.training.evaluation import known, no_better, write_samples
from mdnc.training.finders import Finders, tame
from mdnc.training.history import FILE, Row, read_history, shown
from mdnc.training.nonfinite_loss import Guard
from mdnc.training.plateau import Stopping
from mdnc.training.progress import Lines, make_progress
from mdnc.training.report import Baselines, task_report, write_report
from mdnc.training.resume_settings import Settings
from mdnc.training.run_record import RunRecord
from mdnc.training.sampler import LoaderState
from mdnc.training.sanity_check import Sanity
from mdnc.training.saving import Keeper
from mdnc.training.seed import Repeatable
from mdnc.training.tasks import Task
from mdnc.training.trainer_options import check_options
from mdnc.training.weight_averaging import Averages

# Defaults that differ from a plain Trainer: metrics.csv is saved with the checkpoints, so no logger is needed.
DEFAULTS: dict[str, Any] = {
    'devices': 1,
    'logger': False,
    'enable_model_summary': False,
    'num_sanity_val_steps': 1,
    'use_distributed_sampler': False,
}
_CALLBACKS: tuple[tuple[type | tuple[type, ...], Callable[[], L.Callback]], ...] = (
    (LoaderState, LoaderState),
    (RunRecord, RunRecord),
    (Averages, Averages),
    (Finders, Finders),
    (Settings, Settings),
    (Stopping, Stopping),
    (Repeatable, Repeatable),
    (Sanity, Sanity),
    (Guard, Guard),
    (Keeper, Keeper),
    ((ProgressBar, Lines), make_progress),
)


def quieten() -> None:
    """Suppress messages that Lightning prints at every start."""
    for name in ('lightning.pytorch', 'lightning.fabric'):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings('ignore', message='.*LeafSpec', module='lightning')
    # A warning at every test of a run with averaged weights, although the checkpoint's weights are the averages.
    warnings.filterwarnings('ignore', message="You're using the WeightAveraging callback, but loading a checkpoint")
    # A task checks batches of every loader, also those of data modules.
    warnings.filterwarnings('ignore', message='You have overridden `on_before_batch_transfer` in `LightningModule`')
    # A part that is empty or missing on purpose, for example with split.val=0.
    warnings.filterwarnings('ignore', message='You defined a `validation_step` but have no `val_dataloader`')
    warnings.filterwarnings('ignore', message='Total length of .* across ranks is zero')


def make_trainer(
    run_dir: str | os.PathLike[str],
    *,
    callbacks: Sequence[L.Callback] = (),
    plugins: Sequence[Any] = (),
    **options: Any,
) -> L.Trainer:
    """Make a Lightning trainer whose runs can be continued and repeated, and count every sample once.

    Args:
        run_dir: Folder of the run: ``config.yaml``, ``metrics.csv``, ``checkpoints/``, pictures.
        callbacks: Further callbacks; a `Keeper`, `Guard`, … replaces the default one.
        plugins: Further Lightning plugins.
        **options: Any other argument of `lightning.Trainer`.

    Returns:
        The trainer; ``trainer.fit(task, data)`` trains, ``ckpt_path=`` continues.

    Raises:
        TypeError: The folder is not a path, callbacks are not a list of callbacks, or an option is unknown.
        ValueError: An option is out of range.

    Example:
        >>> import tempfile
        >>> from mdnc.training import make_trainer
        >>> trainer = make_trainer(tempfile.mkdtemp(), max_epochs=3, accelerator='cpu')
    """
    check_options(run_dir, callbacks, options)
    made = [*callbacks]
    tame(made)
    made += [make() for kind, make in _CALLBACKS if not any(isinstance(given, kind) for given in made)]
    if options.get('enable_progress_bar') is False or isinstance(made[-1], Lines):
        made = [callback for callback in made if not isinstance(callback, ProgressBar)]
        options['enable_progress_bar'] = False
    quieten()
    options = {**DEFAULTS, **options, 'default_root_dir': str(run_dir)}
    return L.Trainer(callbacks=made, plugins=[*plugins, WholeFileIO()], **options)


def start_point(run_dir: Path) -> Path | None:
    """The checkpoint from which a run is continued; None: the run starts over. Damaged ones are reported."""
    path, faults = newest(run_dir)
    for fault in faults:
        warnings.warn(f'{fault}; skipped', stacklevel=2)
    return path


def best_checkpoint(run_dir: Path) -> Path:
    """The best checkpoint of a finished run.

    Raises:
        FileNotFoundError: The run has no checkpoint.
    """
    best = run_dir / FOLDER / BEST
    found = best if best.is_file() else newest(run_dir)[0]
    if found is None:
        raise FileNotFoundError(f'{run_dir} contains no checkpoint; give one with --ckpt_path')
    return found


def fit(trainer: L.Trainer, task: L.LightningModule, data: L.LightningDataModule, start: Path | None) -> None:
    """Train, then test the best checkpoint and write pictures and report."""
    trainer.fit(task, datamodule=data, ckpt_path=start)
    test(trainer, task, data, best_checkpoint(Path(trainer.default_root_dir)))


def test(trainer: L.Trainer, task: L.LightningModule, data: L.LightningDataModule, checkpoint: Path) -> None:
    """Test a checkpoint; write metrics, samples, pictures and report to the run folder."""
    trainer.test(task, datamodule=data, ckpt_path=checkpoint, verbose=False)
    if not trainer.is_global_zero:
        return
    run_dir = Path(trainer.default_root_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    figures = {
        name: float(value) for name, value in sorted(trainer.callback_metrics.items()) if name.startswith('test/')
    }
    baselines: Baselines = getattr(data, 'baselines', {}) if figures else {}
    written = _write(run_dir, task, checkpoint.name, figures, baselines)
    print('\n'.join([f'test: {shown(figures, file="test.json") or "no sample"}', *_beside(figures, baselines)]))
    found = getattr(task, 'evaluation', lambda: None)()
    if found and (trivial := no_better(found[1])):
        print(f'look: on the test part the network is no better than {trivial}')
    files = [checkpoint, run_dir / FILE, *written]
    print('written: ' + ', '.join(str(path) for path in files if path.is_file()), flush=True)


def _beside(figures: Row, baselines: Baselines) -> Iterator[str]:
    """A line for each metric with baselines."""
    for metric, others in baselines.items():
        theirs = ', '.join(f'{name} {value:.4g}' for name, value in others.items())
        yield f'baselines: {metric} {figures[f"test/{metric}"]:.4g} here, {theirs}'


def _write(
    run_dir: Path, task: L.LightningModule, checkpoint: str, figures: dict[str, float], baselines: Baselines
) -> list[Path]:
    """Write the results of a test: metrics, samples, pictures and the report."""
    found, written = getattr(task, 'evaluation', lambda: None)(), [run_dir / 'test.json']
    plain = {name: known(value) for name, value in figures.items()} | (found[1].plain() if found else {})
    plain |= {'baselines': baselines} if baselines else {}
    with whole_file(written[0]) as file:
        file.write(json.dumps({'checkpoint': checkpoint, **plain}, indent=2, allow_nan=False).encode())
    if found:
        written.append(write_samples(run_dir / 'test.csv', *found))
    history = _history(run_dir)
    written += getattr(task, 'pictures', lambda folder, history: [])(run_dir, history)
    if isinstance(task, Task) and figures:
        written.append(
            write_report(run_dir / 'report.html', task_report(task, checkpoint, history, figures, found, baselines))
        )
    return written


def _history(run_dir: Path) -> list[Row]:
    try:
        return read_history(run_dir)
    except ValueError as error:  # the results of the test are still valid
        warnings.warn(f'{error}; no curves are drawn', stacklevel=2)
        return []
