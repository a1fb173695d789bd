"""Zarr arrays, and arrays inside Zarr groups."""

from typing import Any

from mdnc._extras import require
from mdnc.training.data.reader import DataError, choose_member


def open_zarr(path: str, member: str) -> Any:
    """One array of a Zarr store."""
    zarr = require('zarr', 'data')
    try:
        store = zarr.open(path, mode='r')
    except FileNotFoundError as error:
        raise DataError(f'{path} holds no Zarr array or group') from error
    if isinstance(store, zarr.Array):
        if member:
            raise DataError(f'{path} is one array; ::{member} has no meaning')
        return _plain(store, path)
    members = dict(store.members(max_depth=None))
    names = [name for name, item in members.items() if isinstance(item, zarr.Array)]
    return _plain(members[choose_member(member.strip('/'), names, path)], path)


def _plain(array: Any, path: str) -> Any:
    # A chunk that was pickled runs what it names when it is read.
    stored = {name: value for name, value in array.metadata.to_dict().items() if name != 'attributes'}
    if 'pickle' in str(stored).lower():
        raise DataError(f'{path} holds pickled Python objects, not numbers')
    return array
