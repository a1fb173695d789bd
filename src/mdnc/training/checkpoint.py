"""Checkpoints of a run: written atomically, found, checked, and refused if they do not fit."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from mdnc._archive import DamagedFileError, check_archive, load_archive, save_archive
from mdnc._files import PART_SUFFIX, whole_file
from mdnc._plain import plain

FOLDER = 'checkpoints'
BEST = 'best.ckpt'
# Files that a killed run leaves behind: incomplete files, and temporary files of Lightning's finders.
_WRITTEN = [
    f'.{name}.*{PART_SUFFIX}'
    for name in (
        'config.yaml',
        'metrics.csv',
        'network.txt',
        'run.json',
        'test.json',
        'test.csv',
        'report.html',
        '*.png',
    )
]
_WRITTEN += ['.lr_find_*.ckpt', '.scale_batch_size_*.ckpt']
_NUMBERED = re.compile(r'step-(\d+)\.ckpt')


class WholeFileIO(CheckpointIO):
    """Lets Lightning write checkpoints atomically with a checksum, and read only plain values."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint beside ``path``, then rename it; see `mdnc._archive.save_archive`."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_archive(checkpoint, path)
        except OSError as error:
            kept = ', '.join(old.name for old in numbered(path.parent)) or 'none so far'
            reason = os.strerror(error.errno or 0)
            raise OSError(f'the checkpoint {path} could not be written ({reason}); undamaged ones: {kept}') from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Check the checksum of a checkpoint and read it; code in it is never run, even with ``weights_only=False``."""
        if Path(path).is_dir():
            raise DamagedFileError(f'{path} is a folder, not a checkpoint')
        if not Path(path).is_file():
            raise FileNotFoundError(f'checkpoint {path} does not exist')
        checkpoint = load_archive(path, map_location or 'cpu')
        if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
            raise DamagedFileError(f'{path} is a torch file, but not a checkpoint of a training run')
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint if it exists."""
        Path(path).unlink(missing_ok=True)


def numbered(folder: Path) -> list[Path]:
    """The checkpoints ``step-….ckpt`` of a folder, newest first."""
    found = [(int(match[1]), path) for path in folder.glob('step-*.ckpt') if (match := _NUMBERED.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def sweep(folder: Path) -> None:
    """Remove incomplete files of a killed process."""
    for part in folder.glob(f'.*{PART_SUFFIX}'):
        part.unlink(missing_ok=True)


def sweep_run(run_dir: Path) -> None:
    """The same in the run folder, except for files that another command may be writing, such as predictions."""
    for name in _WRITTEN:
        for part in run_dir.glob(name):
            part.unlink(missing_ok=True)


def newest(run_dir: str | os.PathLike[str]) -> tuple[Path | None, list[str]]:
    """Find the newest undamaged checkpoint of a run.

    Args:
        run_dir: The run's folder.

    Returns:
        Its path, None if the run has none yet, and a message for each damaged one that was skipped.

    Raises:
        DamagedFileError: All checkpoints are damaged.
    """
    faults = []
    for path in _candidates(Path(run_dir) / FOLDER):
        try:
            if path.is_dir():
                raise DamagedFileError(f'{path} is a folder, not a checkpoint')
            check_archive(path)
        except DamagedFileError as error:  # noqa: PERF203 # a handful of files, each of them large
            faults.append(str(error))
        else:
            return path, faults
    if faults:
        raise DamagedFileError('all checkpoints of this run are damaged: ' + '; '.join(faults))
    return None, []


def _candidates(folder: Path) -> Iterator[Path]:
    yield from numbered(folder)
    if (folder / BEST).is_file():
        yield folder / BEST


def keep_as(path: Path, name: str) -> None:
    """Give a checkpoint a second name in its folder, replacing an existing file atomically."""
    target = path.with_name(name)
    part = path.with_name(f'.{name}{PART_SUFFIX}')
    part.unlink(missing_ok=True)
    try:
        os.link(path, part)  # needs no space
    except OSError:  # a file system without links
        with path.open('rb') as source, whole_file(target) as file:
            shutil.copyfileobj(source, file)
    else:
        os.replace(part, target)


def check_saves(trainer: L.Trainer) -> None:
    """Refuse a run before training if its checkpoints could not be read again.

    Args:
        trainer: The trainer, when optimizers, callbacks and data are ready.

    Raises:
        TypeError: A value in the checkpoint cannot be stored as plain data; the message names it.
    """
    if type(trainer.strategy) in (SingleDeviceStrategy, DDPStrategy):  # other strategies gather shards at great cost
        plain(trainer._checkpoint_connector.dump_checkpoint(weights_only=False), 'checkpoint')


def check_fits(task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
    """Refuse a checkpoint of another network, with a message about what it contains and what fits.

    Args:
        task: The task to load the weights into.
        checkpoint: A checkpoint as Lightning loads it.

    Raises:
        ValueError: A weight is missing, unknown, or of another shape.
    """
    theirs, ours = _shapes(checkpoint['state_dict']), _shapes(task.state_dict())
    if theirs == ours:
        return
    fitting = [key for key in ours if theirs.get(key) == ours[key]]
    misfit = next(key for key in [*ours, *theirs] if theirs.get(key) != ours.get(key))
    held = checkpoint.get('hyper_parameters', {}).get('network')
    built = task.hparams.get('network')
    raise ValueError(
        f'the checkpoint belongs to another network: it contains {_words(held)}, the configuration builds '
        f'{_words(built)}. '
        f'{len(fitting)} of {len(ours)} tensors fit; the first that does not fit is {misfit}: '
        f'{theirs.get(misfit, "missing")} in the checkpoint, {ours.get(misfit, "missing")} in the network'
    )


def _shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}


def _words(network: Any) -> str:
    if not isinstance(network, dict):
        return 'another network' if network is None else type(network).__name__
    arguments = ', '.join(f'{key}={value!r}' for key, value in network.get('arguments', {}).items())
    return f'{network.get("name")}({arguments})'
