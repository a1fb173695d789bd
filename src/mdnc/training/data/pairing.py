"""Inputs and targets in one order: by what their files are called, or by the files that a table names."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from mdnc.training.data.files import File, plain_name, without_suffix
from mdnc.training.data.folder import Folder, Stacked
from mdnc.training.data.reader import DataError, Joined, Reader
from mdnc.training.data.table import FILE_COLUMN, Table

# Words at the end or the beginning of names; numbers tell files apart, but for four digits, which nnU-Net counts
# channels by.
_LAST = re.compile(r'(?<=[^/])[-_. ]([^-_. /]*[^\W\d_][^-_. /]*|[0-9]{4})$')
_FIRST = re.compile(r'(?<![^/])[^-_. /]*[^\W\d_][^-_. /]*[-_. ](?=[^/]+$)')

Named = TypeVar('Named', bound=Hashable)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ', '.join(listed[:3]) + (f', … ({len(listed)})' if len(listed) > 3 else '')


def _files(reader: Reader) -> Sequence[File]:
    return reader.files if isinstance(reader, Folder | Joined) else ()


def refuse_repeated(reader: Reader) -> None:
    """Refuse files that were named twice: a sample would train and test.

    Raises:
        DataError: A file stands twice in a list or is met by two patterns of it.
    """
    counts = Counter((os.path.abspath(file.path), file.member) for file in _files(reader))
    twice = [path for (path, _), number in counts.items() if number > 1]
    if twice:
        raise DataError(f'inputs: files are named twice: {_some(twice)}')


def _without_targets(source: Reader, wanted: Reader) -> Reader:
    """The inputs, where targets lie among them, without these: ``img`` and ``img/*_mask.png``, or ``img/y.csv``."""
    parts = wanted.readers if isinstance(wanted, Joined) else (wanted,)
    named = [part.path for part in parts if isinstance(part, Table)]
    if not isinstance(source, Folder) or not (named or isinstance(wanted, Folder)):
        return source
    files, others = (
        [os.path.realpath(path) for path in paths]
        for paths in ([file.path for file in source.files], named or [file.path for file in _files(wanted)])
    )
    places = [place for place, file in enumerate(files) if file not in {*others}]
    # All targets, and not all that there is: frames may have the next frame as their target.
    return source.rearranged(places) if places and len(places) + len({*others}) == len(files) else source


def _places(first: Sequence[Named], second: Sequence[Named]) -> list[int] | None:
    """Where each of the first stands in the second; None where they are not the same."""
    places = {name: place for place, name in enumerate(second)}
    if len(places) < len(second) or len(first) != len(second) or set(first) != set(places):
        return None
    return [places[name] for name in first]


def _partly_alike(inputs: Sequence[File], targets: Sequence[File], places: Sequence[int]) -> bool:
    same = [file.stem == targets[place].stem for file, place in zip(inputs, places, strict=True)]
    return any(same) and not all(same)


def _matched(inputs: Sequence[File], targets: Sequence[File]) -> list[int]:
    keys: Sequence[Callable[[File], Hashable]] = (lambda file: file.stem, lambda file: file.key)
    for key in keys:
        places = _places([key(file) for file in inputs], [key(file) for file in targets])
        if places is not None and not _partly_alike(inputs, targets, places):
            return places
    for first in _shortened([file.stem for file in inputs]):
        for second in _shortened([file.stem for file in targets]):
            places = _places(first, second)
            if places is not None:
                return places
    raise DataError(_mismatch(inputs, targets))


def stacked(parts: Sequence[Reader], role: str) -> Stacked:
    """Files that are one sample together, paired as inputs and targets are.

    Raises:
        DataError: They are no files of one sample each, or have no counterparts.
    """
    folders = [part for part in parts if isinstance(part, Folder)]
    if len(folders) < len(parts):
        raise DataError(f"{role}: ' + ' joins files that are one sample each, folders or patterns of such")
    first, *others = folders
    return Stacked([first, *(other.rearranged(_matched(first.files, other.files)) for other in others)])


def _shortened(stems: Sequence[str]) -> Iterator[list[str]]:
    """Names without the words that all of them end, or begin, with: ``a_mask``, ``b_mask`` are ``a``, ``b``."""
    yield [*stems]
    for cut in (_LAST, _FIRST):
        names = [*stems]
        while len(ends := {_end(cut, name) for name in names}) == 1 and None not in ends:
            names = [cut.sub('', name) for name in names]
            yield names


def _end(word: re.Pattern[str], name: str) -> str | None:
    found = word.search(name)
    return None if found is None else found[0]


def _mismatch(inputs: Sequence[File], targets: Sequence[File]) -> str:
    sides = []
    for files, others, lack in ((inputs, targets, 'target'), (targets, inputs, 'input')):
        known = {file.stem for file in others}
        lone = [file.path for file in files if file.stem not in known]
        stems = Counter(file.stem for file in files)
        twice = [file.path for file in files if stems[file.stem] > 1]
        sides += [f'without {lack}: {_some(lone)}'] if lone else []
        sides += [f'of one name: {_some(twice)}'] if twice else []
    return f'inputs and targets are paired by the names of their files; {"; ".join(sides)}'


def _compare_lengths(source: Joined, wanted: Joined) -> None:
    for own, other, file in zip(source.readers, wanted.readers, source.files, strict=True):
        if len(own) != len(other):
            raise DataError(
                f'{file.label} holds {len(own)} inputs, but {other.file(0) if len(other) else "its file"} '
                f'holds {len(other)} targets for them'
            )


def _parts(name: str) -> tuple[str, ...]:
    # Windows writes backslashes, cameras write .JPG.
    *folders, base = os.path.normpath(plain_name(name).replace('\\', '/')).split(os.sep)
    stem, dot, suffix = base.rpartition('.')
    return (*folders, f'{stem}.{suffix.lower()}' if dot else base)


class _Names:
    """The input files by what a row of a table may call them: the end of their path, with or without suffix."""

    def __init__(self, files: Sequence[File]) -> None:
        self._near = self._index([_parts(file.name) for file in files])
        self._whole = [_parts(os.path.abspath(file.path)) for file in files]
        self._ends: dict[int, dict[tuple[str, ...], list[int]]] = {}

    @staticmethod
    def _index(names: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], list[int]]:
        index = defaultdict(list)
        for place, name in enumerate(names):
            for form in {name, (*name[:-1], without_suffix(name[-1]))}:
                index[form].append(place)
        return index

    def find(self, row: str) -> list[int]:
        """The files that a row may mean; those that are called so from where they were named come before others."""
        parts = _parts(row)
        count = len(parts)
        if count not in self._ends:
            self._ends[count] = self._index(name[-count:] for name in self._whole)
        return self._near.get(parts) or self._ends[count].get(parts, [])


def _by_rows(folder: Folder, tables: Sequence[Table]) -> Folder:
    names = _Names(folder.files)
    rows = [(table, line, cell) for table in tables for line, cell in enumerate(table.files or ())]
    found = [(f'{table.name(line)} ({cell})', names.find(cell)) for table, line, cell in rows]
    several = next(((row, places) for row, places in found if len(places) > 1), None)
    if several is not None:
        listed = _some(folder.files[place].name for place in several[1])
        raise DataError(f'{several[0]} may be any of {listed}; write the path from {_root(folder)} on')
    taken = Counter(place for _, places in found for place in places)
    absent = [row for row, places in found if not places]
    spare = [file.name for place, file in enumerate(folder.files) if place not in taken]
    sides = (('rows without a file', absent), ('files without a row', spare))
    lone = [f'{len(listed)} {what}: {_some(listed)}' for what, listed in sides if listed]
    if lone:
        raise DataError(f'{tables[0].file(0)} and {_root(folder)} do not fit; {"; ".join(lone)}')
    twice = [row for row, places in found if taken[places[0]] > 1]
    if twice:
        raise DataError(f'several rows name one file: {_some(twice)}')
    return folder.rearranged([places[0] for _, places in found])


def _same_rows(source: Table, wanted: Table) -> Table:
    first, second = ([plain_name(cell) for cell in table.files or ()] for table in (source, wanted))
    places = _places(first, second)
    if places is None:
        lone = sorted({*first} ^ {*second})
        raise DataError(
            f'{source.path} and {wanted.path} must name the same files, each once, in their column {FILE_COLUMN!r}'
            + (f'; only one of them names {_some(lone)}' if lone else '')
        )
    return wanted.rearranged(places)


def _root(folder: Folder) -> str:
    file = folder.files[0]
    return file.path.removesuffix(file.name.replace('/', os.sep)).rstrip(os.sep) or os.curdir


def _refuse_other_column(folder: Folder, table: Table) -> None:
    # Rows in another order than the files would else be taken for theirs.
    names = _Names(folder.files)
    for column in filter(None, table.header):
        found = [names.find(cell) for cell in table.cells(column)]
        places = [each[0] for each in found if len(each) == 1]
        if sorted(places) == list(range(len(folder))) != places:
            raise DataError(
                f'{table.path}: column {column!r} names the files of the inputs, in another order than theirs; call it '
                f'{FILE_COLUMN!r}, so that rows find their files'
            )


def in_one_order(source: Reader, wanted: Reader) -> tuple[Reader, Reader]:
    """Inputs and targets so that those that belong together have one number.

    Raises:
        DataError: A file has no counterpart, or several.
    """
    source = _without_targets(source, wanted)
    tables = [part for part in (wanted.readers if isinstance(wanted, Joined) else (wanted,)) if isinstance(part, Table)]
    naming = [table for table in tables if table.files is not None]
    if naming and isinstance(source, Table) and isinstance(wanted, Table) and source.files is not None:
        return source, _same_rows(source, wanted)
    if naming:
        if not isinstance(source, Folder) or len(naming) < len(tables):
            raise DataError(
                f'{naming[0].file(0)} names files, so the inputs must be a folder or a pattern of such files, one '
                'sample a file, and all tables must name files'
            )
        return _by_rows(source, tables), wanted
    if tables and isinstance(source, Folder):
        _refuse_other_column(source, tables[0])
    if isinstance(source, Folder) and isinstance(wanted, Folder):
        return source, wanted.rearranged(_matched(source.files, wanted.files))
    if isinstance(source, Joined) and isinstance(wanted, Joined):
        wanted = wanted.rearranged(_matched(source.files, wanted.files))
        _compare_lengths(source, wanted)
    return source, wanted
