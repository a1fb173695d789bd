"""What a network makes of samples, on its way to a file: each sample once, whatever process saw it.

Each process appends to a part of its own beside the file, so that no more than a batch is held in memory; when all are
done, the first one merges the parts in the order of the samples.
"""

import contextlib
import glob
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import lightning as L
import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from torch import Tensor

from mdnc._extras import require
from mdnc._files import PART_SUFFIX, whole_file

_NAMES = 'names.json'


class _Merged:
    """The samples in the parts of all processes, ascending by number."""

    def __init__(self, parts: Sequence[Path]) -> None:
        archives = [zipfile.ZipFile(part) for part in parts]
        self._names: dict[int, str] = {}
        self._archives: dict[int, zipfile.ZipFile] = {}
        for archive in archives:
            names = {int(index): name for index, name in json.loads(archive.read(_NAMES)).items()}
            self._names |= names
            self._archives |= dict.fromkeys(names, archive)
        self.index = np.array(sorted(self._names), np.int64)
        self.names = [self._names[index] for index in self.index.tolist()]

    def read(self, index: int) -> NDArray[Any]:
        with self._archives[index].open(f'{index}.npy') as file:
            values: NDArray[Any] = npy_format.read_array(file)
            return values

    def header(self, index: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with self._archives[index].open(f'{index}.npy') as file:
            npy_format.read_magic(file)
            shape, _, dtype = npy_format.read_array_header_1_0(file)
            return shape, dtype

    def common(self) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """Shape and type of every sample, None where they differ."""
        headers = {self.header(index) for index in self.index.tolist()}
        return headers.pop() if len(headers) == 1 else None


def _write_hdf5(file: BinaryIO, merged: _Merged, classes: list[str] | None) -> None:
    with require('h5py', 'data').File(file, 'w') as store:
        store['index'], store['name'] = merged.index, merged.names
        if classes is not None:
            store['classes'] = classes
        common = merged.common()
        if common is not None:
            values = store.create_dataset('prediction', (len(merged.index), *common[0]), common[1])
            for row, index in enumerate(merged.index.tolist()):
                values[row] = merged.read(index)
            return
        for index in merged.index.tolist():
            store[f'prediction/{index}'] = merged.read(index)


def _write_npz(file: BinaryIO, merged: _Merged, classes: list[str] | None) -> None:
    with zipfile.ZipFile(file, 'w') as archive:
        texts = {'name': merged.names} | ({'classes': classes} if classes is not None else {})
        for name, array in {'index': merged.index, **{key: np.array(text) for key, text in texts.items()}}.items():
            _store(archive, name, array)
        common = merged.common()
        if common is None:
            for index in merged.index.tolist():
                _store(archive, f'prediction/{index}', merged.read(index))
            return
        shape, dtype = common
        header = {
            'descr': npy_format.dtype_to_descr(dtype),
            'fortran_order': False,
            'shape': (len(merged.index), *shape),
        }
        with archive.open('prediction.npy', 'w', force_zip64=True) as member:
            npy_format.write_array_header_1_0(member, header)
            for index in merged.index.tolist():
                member.write(merged.read(index).tobytes())


def _store(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        npy_format.write_array(member, np.ascontiguousarray(array), version=(1, 0))


_WRITERS = {'.h5': _write_hdf5, '.hdf5': _write_hdf5, '.npz': _write_npz}


class PredictionWriter(L.Callback):
    """Writes what `trainer.predict` gives to one file.

    It holds ``index`` (numbers of the samples, ascending), ``name``, ``classes`` where there are such, and
    ``prediction``: one array ``(N, ...)``, or one array a sample under ``prediction/<index>`` where
    their sizes differ.

    Args:
        path: The file, ``.h5`` or ``.npz``. Several processes need to see its folder, all of them.

    Raises:
        ValueError: The file's name ends otherwise, or is a folder's.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.suffix not in _WRITERS or self.path.is_dir():
            raise ValueError(f'predictions are written to a file .h5, .hdf5 or .npz, not {self.path}')
        self.samples = 0  # that the file holds
        self._archive: zipfile.ZipFile | None = None

    def _part(self, rank: int) -> Path:
        return self.path.with_name(f'.{self.path.name}.{rank}{PART_SUFFIX}')

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part(trainer.global_rank).open('wb')
        self._archive = zipfile.ZipFile(self._file, 'w')
        self._names: dict[int, str] = {}

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert self._archive is not None
        values = outputs.float() if outputs.is_floating_point() else outputs  # numpy knows no bfloat16
        for row, index in enumerate(batch['index'].tolist()):
            if batch['weight'][row] > 0:
                with self._full_disk_named():
                    _store(self._archive, str(index), values[row].cpu().numpy())
                self._names[index] = batch['name'][row]

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._archive is not None
        with self._full_disk_named():
            self._archive.writestr(_NAMES, json.dumps(self._names))
            self._archive.close()
            self._file.close()
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        merged = _Merged([self._part(rank) for rank in range(trainer.world_size)])
        facts = getattr(pl_module, 'facts', {})
        with self._full_disk_named(), whole_file(self.path) as file:
            _WRITERS[self.path.suffix](file, merged, facts.get('classes'))
        self.samples = len(merged.index)
        for part in self.path.parent.glob(f'.{glob.escape(self.path.name)}.*{PART_SUFFIX}'):  # of killed ones too
            part.unlink(missing_ok=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self._archive is not None:
            self._archive.fp = None  # or it would write its end, when it is forgotten, to a full disk
            with contextlib.suppress(OSError):
                self._file.close()
        self._part(trainer.global_rank).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _full_disk_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f'the predictions {self.path} could not be written ({error.strerror or error})') from error
