"""Zarr arrays, and arrays inside Zarr groups."""

from typing import Any

from mdnc._extras import require
from mdnc.training.data.reader import choose_member


def open_zarr(path: str, member: str) -> Any:
    """One array of a Zarr store."""
    zarr = require('zarr', 'data')
    store = zarr.open(path, mode='r')
    if isinstance(store, zarr.Array):
        return store
    members = dict(store.members(max_depth=None))
    names = [name for name, item in members.items() if isinstance(item, zarr.Array)]
    return members[choose_member(member.strip('/'), names, path)]
