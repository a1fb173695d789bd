"""What folders say where nobody names targets: a class is a folder, or a mask has its image's name and a word more."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from mdnc.training.data.files import folder_files
from mdnc.training.data.reader import DataError
from mdnc.training.data.sources import known_kinds

_MASK = re.compile(r'(.+)([_\-. ](?:mask|masks|seg|segmentation|label|labels|gt|annotation))', re.IGNORECASE)
_INSTEAD = '--task Reconstruction for an auto-encoder'


def seen_targets(inputs: Any) -> tuple[str, str] | None:
    """Targets that a folder shows, as a recipe names them, and why; None where it shows none.

    Example:
        >>> seen_targets('no/such/folder') is None
        True
    """
    if not isinstance(inputs, str | os.PathLike) or not Path(inputs).is_dir():
        return None
    folder = os.fspath(inputs)
    try:
        names = [file.name for file in folder_files(folder, _suffixes())]
    except DataError:
        return None
    return _masks(folder, names) or _classes(names)


def _suffixes() -> tuple[str, ...]:
    kinds = known_kinds()
    return (*kinds.samples, *kinds.recordings)


def _masks(folder: str, names: list[str]) -> tuple[str, str] | None:
    parts = [(name.removesuffix(Path(name).suffix), Path(name).suffix) for name in names]
    stems = {stem for stem, _ in parts}
    found = [(match[1], match[2], suffix) for stem, suffix in parts if (match := _MASK.fullmatch(stem))]
    endings = Counter((word, suffix) for _, word, suffix in found)
    if len(endings) != 1 or not all(stem in stems for stem, _, _ in found):
        return None
    ((word, suffix),) = endings
    deep = '**/' if any('/' in name for name in names) else ''
    where = os.path.join(folder, f'{deep}*{word}{suffix}')
    return where, f'files have the names of others with {word!r} more: they are their masks; {_INSTEAD}'


def _classes(names: list[str]) -> tuple[str, str] | None:
    folders = Counter(name.rpartition('/')[0] for name in names)
    if '' in folders or any('/' in folder for folder in folders) or len(folders) < 2 or len(names) < 2 * len(folders):
        return None
    shown = ', '.join(list(folders)[:3]) + (', …' if len(folders) > 3 else '')
    return 'folder', f'the folders {shown} name {len(folders)} classes; {_INSTEAD}'
