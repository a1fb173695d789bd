"""File formats of predictions: one file for all samples, or one per sample with the names of the inputs."""

import csv
import gzip
import io
import os
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from mdnc._extras import require
from mdnc._files import PART_SUFFIX, whole_file

Array = NDArray[Any]
_PIECE = 2**24  # bytes that are copied at once
_AXES = {2: 'YX', 3: 'ZYX'}


@dataclass(frozen=True)
class PredictionKind:
    """The kind of predictions.

    Args:
        dense: Whether they are maps.
        output: ``'probabilities'``, ``'classes'`` or ``'values'``.
        classes: Names of the classes.
        columns: Names of the quantities.
        values: Label values of the classes in files.
        spreads: Names of the figures that say how far averaged networks are apart.
    """

    dense: bool = False
    output: str = 'values'
    classes: list[str] | None = None
    columns: list[str] = field(default_factory=list)
    values: list[int] | None = None
    spreads: list[str] = field(default_factory=list)


class Row(NamedTuple):
    """Facts about a sample, other than its prediction."""

    name: str
    file: str
    target: Any = None
    spread: Sequence[float] = ()  # of averaged networks, in a table


class Predictions(Protocol):
    """The predictions in ascending order of sample numbers, read one at a time."""

    meaning: PredictionKind
    index: Array
    rows: list[Row]

    def read(self, index: int) -> Array:
        """One prediction; a large one as a memory map."""

    def common(self) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """Shape and type of every prediction, None if they differ."""

    def grid(self, index: int) -> Any:
        """The grid of the sample in its file, or None."""


def _pieces(values: Array) -> Iterator[tuple[slice, Array]]:
    """Parts of an array along its first axis that fit into memory."""
    if values.ndim == 0 or not values.size:
        yield slice(None), values
        return
    step = max(1, _PIECE // max(1, values.nbytes // len(values)))
    for start in range(0, len(values), step):
        yield slice(start, start + step), np.ascontiguousarray(values[start : start + step])


# One file for all samples.


def _write_hdf5(path: Path, outcome: Predictions) -> None:
    with whole_file(path) as file, require('h5py', 'data').File(file, 'w') as store:
        store['index'], store['name'] = outcome.index, [row.name for row in outcome.rows]
        if outcome.meaning.classes is not None:
            store['classes'] = outcome.meaning.classes
        common = outcome.common()
        whole = store.create_dataset('prediction', (len(outcome.index), *common[0]), common[1]) if common else None
        for row, index in enumerate(outcome.index.tolist()):
            values = outcome.read(index)
            if whole is None:
                place = store.create_dataset(f'prediction/{index}', values.shape, values.dtype)
            for part, piece in _pieces(values):
                if whole is not None:
                    whole[(row, part) if values.ndim else row] = piece
                else:
                    place[part if values.ndim else ()] = piece


def _write_npz(path: Path, outcome: Predictions) -> None:
    with whole_file(path) as file, zipfile.ZipFile(file, 'w') as archive:
        texts = {'name': [row.name for row in outcome.rows]}
        texts |= {'classes': outcome.meaning.classes} if outcome.meaning.classes is not None else {}
        for name, array in {'index': outcome.index, **{key: np.array(text) for key, text in texts.items()}}.items():
            _member(archive, name, array.shape, array.dtype, [array])
        common, numbers = outcome.common(), outcome.index.tolist()
        if common is not None:
            _member(archive, 'prediction', (len(numbers), *common[0]), common[1], map(outcome.read, numbers))
            return
        for index in numbers:
            values = outcome.read(index)
            _member(archive, f'prediction/{index}', values.shape, values.dtype, [values])


def _member(archive: zipfile.ZipFile, name: str, shape: Sequence[int], dtype: Any, arrays: Any) -> None:
    header = {'descr': npy_format.dtype_to_descr(dtype), 'fortran_order': False, 'shape': tuple(shape)}
    with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        npy_format.write_array_header_1_0(member, header)
        for values in arrays:
            for _, piece in _pieces(values):
                member.write(piece.tobytes())


def _write_zarr(path: Path, outcome: Predictions) -> None:
    zarr = require('zarr', 'data')
    part = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', suffix=PART_SUFFIX, dir=path.parent))
    try:
        store = zarr.open_group(str(part / 'new'), mode='w')
        make = getattr(store, 'create_array', None) or store.create_dataset
        named = {'name': [row.name for row in outcome.rows], 'classes': outcome.meaning.classes}
        store.attrs.update({key: value for key, value in named.items() if value is not None})
        make('index', shape=outcome.index.shape, dtype=outcome.index.dtype)[:] = outcome.index
        common = outcome.common()
        shape = () if common is None else (len(outcome.index), *common[0])
        whole = (
            make('prediction', shape=shape, chunks=(1, *shape[1:]), dtype=common[1]) if common and all(shape) else None
        )
        for row, index in enumerate(outcome.index.tolist()):
            values = outcome.read(index)
            place = make(f'prediction/{index}', shape=values.shape, dtype=values.dtype) if whole is None else whole
            for where, piece in _pieces(values):
                place[(row, where) if whole is not None and values.ndim else row if whole is not None else where] = (
                    piece
                )
        _take_place(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _take_place(part: Path, path: Path) -> None:
    # A folder cannot be replaced in one step: for a moment it does not exist, but it is never incomplete.
    if path.exists():
        os.replace(path, part / 'old')
    os.replace(part / 'new', path)


def _write_csv(path: Path, outcome: Predictions) -> None:
    meaning = outcome.meaning
    text = io.StringIO(newline='')
    table = csv.writer(text)
    told = any(row.target is not None for row in outcome.rows)
    first = outcome.read(int(outcome.index[0])).reshape(-1) if len(outcome.index) else np.zeros(0)
    names = _column_names(meaning, len(first))
    classed = meaning.output == 'probabilities'
    targets = ['target'] if classed or len(names) == 1 else [f'target {name}' for name in names]
    apart = meaning.spreads
    table.writerow(['path', *(['class'] if classed else []), *names, *apart, *(targets if told else [])])
    for index, row in zip(outcome.index.tolist(), outcome.rows, strict=True):
        values = outcome.read(index).reshape(-1)
        given = row.target if isinstance(row.target, list) else [row.target]
        beside = ['' if each is None else each for each in given] if told else []
        best = [names[int(values.argmax())]] if classed else []
        table.writerow([row.name, *best, *(f'{value:.9g}' for value in (*values, *row.spread)), *beside])
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


def _column_names(meaning: PredictionKind, count: int) -> list[str]:
    for known in (meaning.classes if meaning.output != 'values' else None, meaning.columns, meaning.classes):
        if known and len(known) == count:
            return list(known)
    stored = meaning.values if meaning.output != 'values' else None
    return [str(number) for number in (stored if stored and len(stored) == count else range(count))]


# One file per sample.


def _nifti(file: BinaryIO, values: Array, grid: Any, packed: bool) -> None:
    nibabel = require('nibabel', 'data')
    if values.dtype.kind not in 'iu':  # channels are in front, and come last
        values = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
    affine = np.eye(4) if grid is None or grid.affine is None else np.array(grid.affine)
    image = nibabel.Nifti1Image(_narrow(values), affine)
    if not packed:
        image.to_stream(file)
        return
    with gzip.GzipFile(fileobj=file, mode='wb', mtime=0, filename='') as stream:
        image.to_stream(stream)


def _narrow(values: Array) -> Array:
    if values.dtype.kind not in 'iu':
        return values.astype(np.float32, copy=False)
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    kinds = (np.uint8, np.int16, np.uint16, np.int32)
    return values.astype(next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max))


def _png(file: BinaryIO, values: Array, grid: Any, packed: bool) -> None:
    if values.dtype.kind not in 'iu' or values.ndim != 2:
        raise ValueError(
            f'a PNG can store one whole number per pixel, not {values.dtype} {values.shape}; choose tiff, or hdf5'
        )
    require('PIL.Image', 'data').fromarray(_narrow(values)).save(file, 'PNG')


def _tiff(file: BinaryIO, values: Array, grid: Any, packed: bool) -> None:
    # Channels come first; maps of classes have none.
    axes = _AXES.get(values.ndim if values.dtype.kind in 'iu' else values.ndim - 1)
    if axes is None:
        raise ValueError(f'a TIFF can store images or volumes, not {values.shape}; choose npz, or hdf5')
    axes = axes if values.ndim == len(axes) else f'C{axes}'
    values = _narrow(values)
    stream = io.BytesIO()  # tifffile needs a file name, which a temporary file does not have
    values, axes = (values[0], axes[1:]) if axes.startswith('C') and len(values) == 1 else (values, axes)
    require('tifffile', 'data').imwrite(stream, values, photometric='minisblack', metadata={'axes': axes})
    file.write(stream.getbuffer())


def _each_file(suffix: str, write: Callable[[BinaryIO, Array, Any, bool], None]) -> Callable[[Path, Predictions], None]:
    def write_all(path: Path, outcome: Predictions) -> None:
        if is_single(path):
            if len(outcome.index) != 1:
                raise ValueError(f'{path} can store one sample, but there are {len(outcome.index)}; give a folder')
            places = [path]
        else:
            places = [path / name for name in file_names(outcome.rows, suffix)]
        for place, index in zip(places, outcome.index.tolist(), strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(place) as file:
                write(file, outcome.read(index), outcome.grid(index), place.name.endswith('.gz'))

    return write_all


def is_single(path: Path) -> bool:
    """Whether a name is that of a file for one sample."""
    return any(
        path.name.lower().endswith(suffix) for kind in FORMATS.values() if kind.folder for suffix in kind.suffixes
    )


_ROW = re.compile(r'\[(\d+)\]$')
_KNOWN = re.compile(r'(\.nii\.gz|\.ome\.tiff?|\.[A-Za-z0-9]{1,5})$', re.IGNORECASE)


def file_names(rows: Sequence[Row], suffix: str) -> list[str]:
    """A file for each sample: its path relative to the given folder, with another suffix.

    Several samples of one file are distinguished by their number, files that differ only in suffix by this.
    """
    names = []
    for row in rows:
        number = _ROW.search(row.name)
        parts = [part for part in PurePosixPath(row.file.replace('\\', '/')).parts if part not in ('/', '..', '.')]
        base = '/'.join(parts).replace(':', '_') or 'sample'
        names.append((base, f'_{number[1]}' if number else ''))
    stems = [_KNOWN.sub('', base) + number for base, number in names]
    counts = Counter(stems)
    return [
        (stem if counts[stem] == 1 else base + number) + suffix
        for stem, (base, number) in zip(stems, names, strict=True)
    ]


class Format(NamedTuple):
    """A file format of predictions.

    Args:
        suffixes: Suffixes of the file name; the first is the default.
        write: Function that writes all predictions.
        folder: Whether there is one file per sample.
    """

    suffixes: tuple[str, ...]
    write: Callable[[Path, Predictions], None]
    folder: bool = False


FORMATS = {
    'hdf5': Format(('.h5', '.hdf5'), _write_hdf5),
    'npz': Format(('.npz',), _write_npz),
    'zarr': Format(('.zarr',), _write_zarr),
    'csv': Format(('.csv',), _write_csv),
    'nifti': Format(('.nii.gz', '.nii'), _each_file('.nii.gz', _nifti), folder=True),
    'png': Format(('.png',), _each_file('.png', _png), folder=True),
    'tiff': Format(('.tif', '.tiff'), _each_file('.tif', _tiff), folder=True),
}


def named_format(path: Path) -> str | None:
    """The format by the suffix of a name, None if unknown."""
    return next((word for word, kind in FORMATS.items() if path.name.lower().endswith(kind.suffixes)), None)


def usual_format(meaning: PredictionKind, file: str | None) -> str:
    """The default format: a table if samples have one prediction, for maps the format of their files."""
    if not meaning.dense:
        return 'csv'
    known = (file or '').lower()
    if known.endswith(FORMATS['nifti'].suffixes):
        return 'nifti'
    if known.endswith(('.png', '.jpg', '.jpeg', '.bmp', '.gif', '.tif', '.tiff')):
        whole = meaning.output == 'classes' and not known.endswith(('.tif', '.tiff'))
        return 'png' if whole else 'tiff'
    return 'hdf5'


def check_place(path: Path | None, word: str | None) -> None:
    """Refuse a name and a format that do not fit together.

    Raises:
        ValueError: They do not fit together, or the format is unknown.
    """
    if word is not None and word not in FORMATS:
        raise ValueError(f'unknown format {word!r}; choose from {", ".join(FORMATS)}')
    if path is None:
        return
    said = named_format(path)
    endings = 'written to a file .h5, .hdf5, .npz or .csv, a store .zarr, or a folder of files nifti, png or tiff'
    if path.suffix and said is None and not path.is_dir():
        raise ValueError(f'predictions are {endings}, not {path}')
    kind = FORMATS[said] if said else None
    if kind is not None and said != 'zarr' and path.is_dir():
        raise ValueError(f'predictions are {endings}; {path} is a folder')
    if word is not None and said not in (None, word):
        raise ValueError(f'{path} is a file of format {said}, not {word}')
    if word is not None and said is None and not FORMATS[word].folder:
        raise ValueError(
            f'predictions of the format {word} are written to a file {FORMATS[word].suffixes[0]}, not {path}'
        )
