"""Arrays in MATLAB files, before version 7.3 (SciPy) and since (HDF5, h5py)."""

from typing import Any

import numpy as np

from mdnc._extras import require
from mdnc.training.data.reader import Array, DataError, choose_member


class _Turned:
    """An array of version 7.3, whose axes lie in the file the other way round."""

    def __init__(self, stored: Any) -> None:
        self._stored, self.shape, self.dtype = stored, tuple(stored.shape[::-1]), stored.dtype

    def __getitem__(self, place: Any) -> Array:
        given = place if isinstance(place, tuple) else (place,)
        if Ellipsis in given:
            at = given.index(Ellipsis)
            given = (*given[:at], *(slice(None),) * (len(self.shape) - len(given) + 1), *given[at + 1 :])
        given = (*given, *(slice(None),) * (len(self.shape) - len(given)))
        return np.asarray(self._stored[given[::-1]]).T


class _Vector:
    """An array ``(1, N)`` or ``(N, 1)`` as ``(N,)``, which MATLAB does not know."""

    def __init__(self, values: Array) -> None:
        self._values = values.ravel()
        self.shape = self._values.shape

    def __getitem__(self, place: Any) -> Array:
        return np.asarray(self._values[place])


def _of_cells(cells: Array, path: str) -> Any:
    found = [np.asarray(cell) for cell in cells.ravel()]
    words = [each.dtype.kind in 'SU' for each in found]
    if all(words):
        return np.array([str(each.item()) if each.size else '' for each in found])
    if any(words) or any(each.dtype.kind not in 'biuf' for each in found):
        raise DataError(f'{path}: its cells must hold numbers, all of them, or words')
    return [each.reshape(1, -1) if 1 in each.shape and each.ndim == 2 else each for each in found]


def _old(path: str, member: str) -> Any:
    matlab = require('scipy.io', 'data')
    names = [name for name, _, kind in matlab.whosmat(path) if kind not in ('struct', 'object', 'opaque', 'function')]
    name = choose_member(member, names, path)
    found = matlab.loadmat(path, variable_names=[name])[name]
    return found.toarray() if hasattr(found, 'toarray') else found  # of sparse ones


def _text(codes: Array) -> str:
    return ''.join(map(chr, codes.ravel(order='F')))


def _new(path: str, member: str) -> Any:
    h5py = require('h5py', 'data')
    file = h5py.File(path, 'r')
    names = [name for name, item in file.items() if isinstance(item, h5py.Dataset) and not name.startswith('#')]
    stored = file[choose_member(member, names, path)]
    kind = stored.attrs.get('MATLAB_class', b'').decode()
    if kind == 'cell':
        cells = np.empty(stored.size, object)
        for place, link in enumerate(stored[()].T.ravel()):
            cell = file[link]
            is_text = cell.attrs.get('MATLAB_class', b'') == b'char'
            cells[place] = np.asarray(_text(cell[()].T)) if is_text else np.asarray(cell[()]).T
        return cells
    if kind == 'char':
        rows = stored[()].T
        return np.array([_text(row).strip() for row in rows])
    return _Turned(stored)


def open_mat(path: str, member: str = '') -> Any:
    """One variable of a MATLAB file: an array; or, of a cell array, a list of arrays or an array of names.

    Args:
        path: The file.
        member: The variable; needed where there are several.
    """
    found = _new(path, member) if require('h5py', 'data').is_hdf5(path) else _old(path, member)
    return _of_cells(found, path) if getattr(getattr(found, 'dtype', None), 'kind', '') == 'O' else found


def open_mat_rows(path: str, member: str = '') -> Any:
    """One variable of a MATLAB file, samples along the first axis, or one a cell."""
    found = open_mat(path, member)
    shape = getattr(found, 'shape', ())
    return _Vector(np.asarray(found[...])) if len(shape) == 2 and 1 in shape else found


def open_mat_sample(path: str, member: str = '') -> Any:
    """One variable of a MATLAB file as one sample ``(C, L1, ...)``; a vector, standing or lying, is ``(1, L)``."""
    found = open_mat(path, member)
    if isinstance(found, list):
        raise DataError(f'{path} holds cells, many samples in one file: name the file itself')
    return np.asarray(found[...]).T if len(found.shape) == 2 and found.shape[1] == 1 else found
