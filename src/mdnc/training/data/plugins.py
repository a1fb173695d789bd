"""Formats of one's own: entry points of packages, group ``mdnc.readers``, named after the suffix that they read."""

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mdnc.training.data.reader import DataError

GROUP = 'mdnc.readers'


@lru_cache
def own_formats() -> dict[str, EntryPoint]:
    """The suffixes that other packages read, ``.edf``, and what reads them."""
    return {f'.{point.name.lstrip(".").lower()}': point for point in entry_points(group=GROUP)}


def open_own(suffix: str, path: str, member: str) -> Any:
    """Open a file by the package that reads its suffix.

    Raises:
        DataError: The package cannot be imported, or gives something else than an array.
    """
    point = own_formats()[suffix]
    try:
        opener = point.load()
    except Exception as error:  # whatever a package of others does when it is imported
        raise DataError(f'the entry point {GROUP}: {point.name} = {point.value} cannot be loaded: {error}') from error
    opened = opener(path, member) if member else opener(path)
    if not hasattr(opened, 'shape') or not hasattr(opened, '__getitem__'):
        raise DataError(
            f'{point.value} gave {type(opened).__name__} for {path}; it must give one sample, an array (C, L1, …)'
        )
    return opened
