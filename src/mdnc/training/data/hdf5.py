"""HDF5 data sets, read in the chunks they are stored in."""

from typing import Any

import numpy as np

from mdnc._extras import require
from mdnc.training.data.reader import choose_member

# Shuffled reading comes back to a chunk soon if at all; 16 MB hold a few chunks of any sensible size.
_CHUNK_CACHE_BYTES = 16 * 2**20


def open_hdf5(path: str, member: str) -> Any:
    """One data set of an HDF5 file, opened for reading beside others who read it."""
    h5py = require('h5py', 'data')
    file = h5py.File(path, 'r', rdcc_nbytes=_CHUNK_CACHE_BYTES)
    members: list[str] = []
    file.visititems(lambda name, item: members.append(name) if isinstance(item, h5py.Dataset) else None)
    wanted = member.strip('/')
    # A link is no member of its own, but leads to one.
    linked = wanted and isinstance(file.get(wanted), h5py.Dataset)
    found = file[wanted if linked else choose_member(wanted, members, path)]
    if h5py.check_string_dtype(found.dtype) is not None:  # names of classes: few and short
        return np.array(found.asstr()[()], str)
    return found
