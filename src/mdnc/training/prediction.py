"""Writing predictions to files: each sample once, whichever process predicted it.

Each process appends to its own part files, so that only a batch is held in memory, and of a map that is predicted in
tiles only a slab. When all processes are done, the first one writes the predictions in the order of the samples.
"""

import contextlib
import glob
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import lightning as L
import numpy as np
import torch
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from torch import Tensor

from mdnc._files import PART_SUFFIX
from mdnc.modules._ensemble import Averaged, spread_names
from mdnc.training.data.reader import release
from mdnc.training.prediction_formats import (
    FORMATS,
    Format,
    PredictionKind,
    Row,
    check_place,
    named_format,
    usual_format,
)
from mdnc.training.progress import SlabLines

_NAMES = 'names.json'


def on_own_grid(grid: Any, values: NDArray[Any], output: str) -> NDArray[Any]:
    """A map of a sample on the grid of its file: resampled, rotated and cropped back."""
    if grid is None:
        return values
    restored: NDArray[Any] = grid.restore(values, nearest=output == 'classes')
    return restored


class _Merged:
    """The samples in the parts of all processes, ascending by number."""

    def __init__(self, parts: Sequence[Path], meaning: PredictionKind, samples: Any) -> None:
        self.meaning = meaning
        self._samples = samples
        self._rows: dict[int, Row] = {}
        self._archives: dict[int, zipfile.ZipFile | Path] = {}
        for part in parts:
            archive = zipfile.ZipFile(part)
            for number, (row, large) in json.loads(archive.read(_NAMES)).items():
                self._rows[int(number)] = Row(*row)
                self._archives[int(number)] = part.with_name(large) if large else archive
        self.index = np.array(sorted(self._rows), np.int64)
        self.rows = [self._rows[index] for index in self.index.tolist()]

    def read(self, index: int) -> NDArray[Any]:
        place = self._archives[index]
        if isinstance(place, Path):
            mapped: NDArray[Any] = np.load(place, mmap_mode='r')
            return mapped
        with place.open(f'{index}.npy') as file:
            values: NDArray[Any] = npy_format.read_array(file)
            return values

    def _header(self, index: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        place = self._archives[index]
        with place.open('rb') if isinstance(place, Path) else place.open(f'{index}.npy') as file:
            npy_format.read_magic(file)
            shape, _, dtype = npy_format.read_array_header_1_0(file)
            return shape, dtype

    def common(self) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        headers = {self._header(index) for index in self.index.tolist()}
        return headers.pop() if len(headers) == 1 else None

    def grid(self, index: int) -> Any:
        return grid_of_sample(self._samples, index)


def grid_of_sample(samples: Any, index: int) -> Any:
    """The grid of a sample, None if its source has none."""
    ask = getattr(samples, 'grid', None)
    return None if ask is None else ask(index)


class _Slabs:
    """A map that is written in slabs along its first spatial axis.

    Args:
        path: The file, in the format of NPY.
        shape: Shape of the map.
        axis: Its first spatial axis.
        dtype: Type of its values.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], axis: int, dtype: np.dtype[Any]) -> None:
        self.path, self.shape, self._axis = path, shape, axis
        self._file: BinaryIO = path.open('wb')
        header = {'descr': npy_format.dtype_to_descr(dtype), 'fortran_order': False, 'shape': shape}
        npy_format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()

    def put(self, start: int, values: NDArray[Any]) -> None:
        """Write a slab; a memory map would end the process when the disk is full."""
        planes = values[None] if self._axis == 0 else values
        row = int(np.prod(self.shape[self._axis + 1 :])) * values.itemsize
        for number, plane in enumerate(planes):
            self._file.seek(self._start + (number * self.shape[self._axis] + start) * row)
            self._file.write(np.ascontiguousarray(plane).tobytes())

    def close(self) -> None:
        self._file.close()


def beside(path: Path, kind: Format) -> Path:
    """Where the spread goes that belongs to the answers of a file or folder."""
    suffix = next((suffix for suffix in kind.suffixes if path.name.lower().endswith(suffix)), '')
    stem = path.name[: len(path.name) - len(suffix)]
    return path.with_name(f'{stem}_spread{path.name[len(stem) :]}')


class Parts:
    """The predictions of one process, in temporary files beside the final one.

    Args:
        path: The file or folder; None for the usual one of the format, in ``folder``.
        word: The format, one of `FORMATS`; None: by the suffix of the name, or by the kind of data.
        folder: Folder of the default file.

    Raises:
        ValueError: Name and format do not fit together.
    """

    def __init__(self, path: Path | None, word: str | None, folder: Path) -> None:
        check_place(path, word)
        self.path, self.word, self._folder = path, word, folder
        self.count = 0  # number of written samples
        self._archive: zipfile.ZipFile | None = None
        self._slabs: dict[int, _Slabs] = {}
        self._beside: Parts | None = None  # for the spread of networks

    def begin(self, rank: int, meaning: PredictionKind, samples: Any) -> None:
        """Open the part files, when the kind of predictions is known.

        Raises:
            ValueError: The format cannot hold them.
        """
        file = samples.file(0) if hasattr(samples, 'file') and len(samples) else None
        word = self.word or (self.path and named_format(self.path)) or usual_format(meaning, file)
        if word == 'png' and meaning.spreads:
            if self.word or (self.path and named_format(self.path)):
                raise ValueError('the spread of networks is no whole number, which PNG holds; choose tiff, or hdf5')
            word = 'tiff'
        if self.path is not None:
            check_place(self.path, word)
        if word == 'csv' and meaning.dense:
            raise ValueError(
                'the format csv has one row per sample, but these predictions are maps; choose hdf5 or npz'
            )
        self.kind = FORMATS[word]
        if self.path is None:
            self.path = self._folder / f'predictions{"" if self.kind.folder else self.kind.suffixes[0]}'
        self.meaning, self._samples, self._rank = meaning, samples, rank
        self._known: dict[int, tuple[Row, str | None]] = {}
        with self._full_disk_named():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        if meaning.spreads and word != 'csv':
            self._beside = Parts(beside(self.path, self.kind), word, self._folder)
            self._beside.begin(rank, PredictionKind(meaning.dense, 'values', columns=meaning.spreads), samples)
        with self._full_disk_named():
            self._file = self.part(rank).open('wb')
        self._archive = zipfile.ZipFile(self._file, 'w')

    def part(self, rank: int, index: int | None = None) -> Path:
        """The part file of a process, or of one large map of it."""
        assert self.path is not None
        number = '' if index is None else f'.{index}'
        return self.path.with_name(f'.{self.path.name}.{rank}{number}{PART_SUFFIX}')

    def slab(self, index: int, size: int, start: int, values: NDArray[Any], spread: NDArray[Any] | None = None) -> None:
        """Add a slab of a map with ``size`` values along its first spatial axis."""
        if self._beside is not None and spread is not None:
            self._beside.slab(index, size, start, spread)
        with self._full_disk_named():
            values = self._stored(values)
            if index not in self._slabs:
                axis = int(self.meaning.output != 'classes')
                shape = (*values.shape[:axis], size, *values.shape[axis + 1 :])
                self._slabs[index] = _Slabs(self.part(self._rank, index), shape, axis, values.dtype)
            self._slabs[index].put(start, values)
        release(self._samples)

    def add(self, index: int, row: Row, values: NDArray[Any] | None = None, spread: NDArray[Any] | None = None) -> None:
        """Add a prediction; None if it was added in slabs."""
        assert self._archive is not None
        if self._beside is not None:
            self._beside.add(index, row, spread)
        elif spread is not None:
            row = row._replace(spread=spread.reshape(-1).tolist())
        with self._full_disk_named():
            grid = grid_of_sample(self._samples, index) if self.meaning.dense else None
            if values is None:
                self._close_slabs(index, grid)
                self._known[index] = row, self.part(self._rank, index).name
                return
            values = self._stored(on_own_grid(grid, values, self.meaning.output))
            with self._archive.open(f'{index}.npy', 'w', force_zip64=True) as member:
                npy_format.write_array(member, np.ascontiguousarray(values), version=(1, 0))
            self._known[index] = row, None

    def _close_slabs(self, index: int, grid: Any) -> None:
        slabs = self._slabs.pop(index)
        slabs.close()
        if grid is None or (grid.axes is None and grid.flips is None and grid.resampled is None):
            return
        restored = on_own_grid(grid, np.load(slabs.path, mmap_mode='r'), self.meaning.output)
        new = slabs.path.with_name(f'{slabs.path.name.removesuffix(PART_SUFFIX)}.own{PART_SUFFIX}')
        with new.open('wb') as file:
            npy_format.write_array(file, np.ascontiguousarray(restored), version=(1, 0))
        os.replace(new, slabs.path)

    def _stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """Class numbers converted to the label values in the files of the training."""
        numbers = self.meaning.values
        if numbers is None or self.meaning.output != 'classes':
            return values
        table = np.array(numbers)
        low, high = int(table.min()), int(table.max())
        kinds = (np.uint8, np.int16, np.uint16, np.int32, np.int64)
        kind = next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
        stored: NDArray[Any] = table.astype(kind)[values]
        return stored

    def end(self) -> None:
        """Close the part files of this process."""
        assert self._archive is not None
        if self._beside is not None:
            self._beside.end()
        with self._full_disk_named():
            self._archive.writestr(_NAMES, json.dumps(self._known))
            self._archive.close()
            self._file.close()

    def write(self, world: int) -> None:
        """Write the predictions of all processes, and remove the part files."""
        assert self.path is not None
        try:
            merged = _Merged([self.part(rank) for rank in range(world)], self.meaning, self._samples)
            self.count = len(merged.index)
            if self.count:
                with self._full_disk_named():
                    self.kind.write(self.path, merged)
            if self._beside is not None:
                self._beside.write(world)
        finally:
            self._remove('*')  # of killed processes too

    def drop(self) -> None:
        """Abort: remove the part files of this process."""
        if self._beside is not None:
            self._beside.drop()
        if self._archive is None:
            return
        for slabs in self._slabs.values():
            slabs.close()
        self._archive.fp = None  # else it would write to the full disk when it is garbage-collected
        with contextlib.suppress(OSError):
            self._file.close()
        self._remove(f'{self._rank}*')

    def _remove(self, which: str) -> None:
        assert self.path is not None
        for part in self.path.parent.glob(f'.{glob.escape(self.path.name)}.{which}{PART_SUFFIX}'):
            if part.is_file():
                part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _full_disk_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f'the predictions {self.path} could not be written ({error.strerror or error})') from error


def as_array(values: Tensor) -> NDArray[Any]:
    """A prediction on the CPU; NumPy has no bfloat16."""
    found: NDArray[Any] = (values.float() if values.is_floating_point() else values).cpu().numpy()
    return found


class PredictionWriter(L.Callback):
    """Writes the predictions of `trainer.predict`: to one file, or to one file per sample.

    One file ``.h5``, ``.npz`` or ``.zarr`` holds ``index`` (numbers of the samples, ascending), ``name``, ``classes``
    if there are classes, and ``prediction``: one array ``(N, ...)``, or one array per sample under
    ``prediction/<index>`` if their sizes differ. A ``.csv`` has a row per sample: its path, the class, probabilities or
    quantities, and the target if it is known. Files ``nifti``, ``png`` and ``tiff`` lie in a folder under the inputs'
    own paths.

    Args:
        path: The file or folder; None: ``predictions`` in the trainer's folder. All processes must have access to
            its folder.
        format: ``'hdf5'``, ``'npz'``, ``'zarr'``, ``'csv'``, ``'nifti'``, ``'png'`` or ``'tiff'``; None: by the
            suffix of the name, else a table if samples have one prediction, and for maps the format of the inputs.

    Raises:
        ValueError: Name and format do not fit together.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, format: str | None = None) -> None:
        self._given = None if path is None else Path(path), format
        check_place(*self._given)
        self._parts: Parts | None = None

    @property
    def path(self) -> Path | None:
        """Path of the written predictions."""
        return self._given[0] if self._parts is None else self._parts.path

    @property
    def samples(self) -> int:
        """Number of written samples."""
        return 0 if self._parts is None else self._parts.count

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._parts, self._next, self._lines = None, 0, SlabLines()
        self._ready = partial(self._begun, trainer, pl_module)
        self._offer(pl_module, self._take_slab)

    def _begun(self, trainer: L.Trainer, task: Any) -> Parts:
        # At the first prediction: before, a task may not know its data.
        if self._parts is None:
            source: Any = getattr(trainer, 'datamodule', None)
            self._classes = getattr(source, 'classes', None)
            parts = Parts(*self._given, Path(getattr(trainer, 'default_root_dir', '.')))
            parts.begin(trainer.global_rank, _meaning(task), getattr(source, 'predict', None))
            self._parts = parts
        return self._parts

    @staticmethod
    def _offer(task: Any, taker: Any) -> None:
        if hasattr(task, 'slabs'):
            task.slabs = taker

    def _take_slab(self, batch: dict[str, Any], start: int, values: Tensor, spread: Tensor | None = None) -> None:
        parts = self._ready()
        for row, index in enumerate(batch['index'].tolist()):
            if batch['weight'][row] > 0:
                apart = None if spread is None else as_array(spread[row])
                size = batch['input'].shape[2]
                parts.slab(index, size, start, as_array(values[row]), apart)
                self._lines.tell(str(batch['name'][row]), start + values.shape[-len(batch['input'].shape[2:])], size)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        parts = self._ready()
        self._lines.begin()
        outputs, spread = outputs if isinstance(outputs, Averaged) else (outputs, None)
        known = batch if isinstance(batch, dict) else {}
        count = len(outputs) or len(known.get('index', ()))
        indices = known['index'].tolist() if 'index' in known else list(range(self._next, self._next + count))
        self._next += count
        for row, index in enumerate(indices):
            if 'weight' in known and not known['weight'][row] > 0:
                continue
            answer = as_array(outputs[row]) if len(outputs) else None
            apart = None if spread is None else as_array(spread[row])
            parts.add(index, self._row(known, row, index), answer, apart)

    def _row(self, batch: dict[str, Any], row: int, index: int) -> Row:
        assert self._parts is not None
        name = batch['name'][row] if 'name' in batch else f'sample {index}'
        samples = self._parts._samples
        return Row(name, samples.file(index) if hasattr(samples, 'file') else name, self._target(batch, row))

    def _target(self, batch: dict[str, Any], row: int) -> Any:
        assert self._parts is not None
        target = batch.get('target')
        if self._parts.meaning.dense or not isinstance(target, Tensor) or target[row].numel() > 1000:
            return None
        known = batch['known'][row] if 'known' in batch else torch.ones_like(target[row], dtype=torch.bool)
        found = target[row].reshape(-1).tolist()
        found = [value if there else None for value, there in zip(found, known.reshape(-1).tolist(), strict=True)]
        if self._parts.meaning.output == 'probabilities' and self._classes is not None and len(found) == 1:
            return self._classes[found[0]] if 0 <= found[0] < len(self._classes) else None
        return found if len(found) > 1 else found[0]

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._offer(pl_module, None)
        parts = self._ready()
        parts.end()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            parts.write(trainer.world_size)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._offer(pl_module, None)
        if self._parts is not None:
            self._parts.drop()


def _meaning(task: Any) -> PredictionKind:
    facts = getattr(task, 'facts', {})
    answer = getattr(task, 'answer', {})
    names = getattr(task, 'names', None)
    columns = [] if names is None else list(names())
    output = answer.get('output', 'values')
    return PredictionKind(
        dense=bool(answer.get('dense')),
        output=output,
        classes=facts.get('classes'),
        columns=[] if answer.get('dense') else columns,
        values=facts.get('values'),
        spreads=spread_names(output, columns) if getattr(task, 'spread', False) else [],
    )
