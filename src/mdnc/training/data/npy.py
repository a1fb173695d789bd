"""NPY and NPZ: memory-mapped, so that a sample costs its own bytes only."""

import math
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from mdnc.training.data.reader import choose_member


def open_npy(path: str, member: str = '') -> Any:
    """The array of an NPY file, which ``member`` need not name, as a memory map."""
    with open(path, 'rb') as file:
        if file.read(len(npy_format.MAGIC_PREFIX)) != npy_format.MAGIC_PREFIX:
            raise ValueError('it is no NPY file, or an empty one')
    return np.load(path, mmap_mode='r', allow_pickle=False)


def open_npz(path: str, member: str) -> Any:
    """One array of an NPZ file: a memory map where it is stored as it is, loaded where it is compressed."""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix('.npy') for name in archive.namelist() if name.endswith('.npy')]
        info = archive.getinfo(choose_member(member, names, path) + '.npy')
        if info.compress_type != zipfile.ZIP_STORED:
            with archive.open(info) as file:
                return npy_format.read_array(file, allow_pickle=False)
    return _map_member(path, info)


def _map_member(path: str, info: zipfile.ZipInfo) -> Any:
    with open(path, 'rb') as file:
        # The local header of a zip member is 30 bytes, its name and an extra field, whose lengths stand at 26 and 28.
        file.seek(info.header_offset + 26)
        name, extra = np.frombuffer(file.read(4), '<u2')
        file.seek(info.header_offset + 30 + int(name) + int(extra))
        version = npy_format.read_magic(file)
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError('it holds Python objects, not numbers')
        begin = info.header_offset + 30 + int(name) + int(extra)
        if file.tell() - begin + math.prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f'its array {info.filename} is cut short')
        return np.memmap(file, dtype, 'r', file.tell(), shape, 'F' if fortran else 'C')
