"""The files that a text names: in natural order, hidden ones left out, known by their path below what was named."""

import glob
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mdnc.training.data.reader import DataError

_WILD = re.compile(r'(\*\*/|\*+|\?|\[.+?\])')
_DOUBLE = re.compile(r'(?<=[^/])\.(nii\.gz|ome\.tiff?)$', re.IGNORECASE)
_REGEX = {'**/': '(?:(.*)/)?', '*': '([^/]*)', '?': '([^/])'}


def suffix_of(name: str) -> str:
    """What a name says of the format, in small letters: ``.nii.gz``, ``.png``."""
    return '.nii.gz' if name.lower().endswith('.nii.gz') else Path(name).suffix.lower()


def without_suffix(name: str) -> str:
    """A name without what says its format; ``.ome.tif`` is one suffix."""
    found = _DOUBLE.search(name)
    return name[: found.start()] if found else name.removesuffix(Path(name).suffix)


@dataclass(frozen=True)
class File:
    """One file of those that were named together.

    Args:
        path: Where it is.
        name: Its path below what was named, with ``/`` between folders: what it is called in predictions, errors,
            splits and tables.
        key: What tells it from those that the same text names: what its wildcards stand for, or the path below a
            folder without suffix; before it, the number of the text in a list.
        member: What stands behind ``::``.
        sample: Whether the file is one sample, as in a folder, and not an array of samples.
    """

    path: str
    name: str
    key: tuple[str, ...] = ()
    member: str = ''
    sample: bool = False

    @property
    def label(self) -> str:
        """The name with its member."""
        return self.name + (f'::{self.member}' if self.member else '')

    @property
    def stem(self) -> str:
        """The name without suffix, by which inputs and targets are paired."""
        return plain_name(without_suffix(self.name))

    @property
    def suffix(self) -> str:
        """What says of which format it is."""
        return suffix_of(self.path)


def plain_name(name: str) -> str:
    """A name in one form: macOS stores letters with accents as two characters, tables mostly as one."""
    return unicodedata.normalize('NFC', name)


def natural_key(name: str) -> tuple[list[list[str | int]], str]:
    """Key that sorts names as people do, folder by folder: ``scan_2`` before ``scan_10``."""
    # Every second part of each list is a number, so that like is compared with like.
    parts = [re.split('([0-9]+)', part) for part in plain_name(name).split('/')]
    return [[int(word) if place % 2 else word for place, word in enumerate(part)] for part in parts], name


def is_hidden(name: str) -> bool:
    """Whether a file or a folder above it is hidden, as ``.cache/``, ``._0.png`` and ``__MACOSX/`` (of macOS) are."""
    return any(part.startswith('.') or part == '__MACOSX' for part in name.split('/') if part not in ('.', '..'))


def _refuse(error: OSError) -> None:
    raise error


def _below(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        here = os.path.relpath(place, folder)
        inside = os.path.realpath(place)
        # A link to a folder above would be followed for ever.
        folders[:] = [
            name
            for name in folders
            if not is_hidden(name)
            and os.path.commonpath([inside, real := os.path.realpath(os.path.join(place, name))]) != real
        ]
        yield from (os.path.normpath(os.path.join(here, name)).replace(os.sep, '/') for name in names)


_PACKED = ('.gz', '.bz2', '.xz', '.zst', '.zip', '.7z', '.tar', '.tgz')


def refuse_packed(name: str) -> None:
    """Refuse a file that must be unpacked first.

    Raises:
        DataError: It is one.
    """
    if suffix_of(name) in _PACKED:
        raise DataError(f'{name} is packed, and of packed files only .nii.gz is read: unpack it')


def folder_files(folder: str, suffixes: Collection[str], recordings: Collection[str] = ()) -> list[File]:
    """The files of a folder and of those in it that may be samples; others (a text) are left out, hidden too.

    Args:
        folder: The folder.
        suffixes: Those of files that are samples.
        recordings: Those of files that are samples where there are no others, as a CSV beside images is none.

    Raises:
        DataError: There is none, or some lie in the folder itself and some in folders of it.
    """
    held = sorted((name for name in _below(folder) if not is_hidden(name)), key=natural_key)
    names = [name for name in held if suffix_of(name) in suffixes]
    names = names or [name for name in held if suffix_of(name) in recordings]
    deeper = [name for name in names if '/' in name]
    if not names:
        if held:
            refuse_packed(os.path.join(folder, held[0]))
        others = f', but {", ".join(held[:3])}: name such files by a pattern' if held else ''
        raise DataError(f'{folder} holds no file of the kinds {", ".join([*suffixes, *recordings])}{others}')
    if deeper and len(deeper) < len(names):
        top = next(name for name in names if '/' not in name)
        raise DataError(
            f'{folder} holds samples itself ({top}) and in its folders ({deeper[0]}); choose by a pattern: '
            f'{os.path.join(folder, "*")} for the first, {os.path.join(folder, "**", "*")} for all'
        )
    return [_sample(folder, name) for name in names]


def _sample(root: str, name: str) -> File:
    return File(os.path.join(root, name), name, (plain_name(without_suffix(name)),), sample=True)


def _literal(pattern: str) -> tuple[str, str]:
    # The folders before the first wildcard; brackets in the name of a folder that is there are no wildcard.
    root, rest = Path(Path(pattern).anchor), [*Path(pattern).parts]
    rest = rest[1:] if Path(pattern).anchor else rest
    while len(rest) > 1 and (root / rest[0]).is_dir():
        root /= rest.pop(0)
    return str(root), '/'.join(rest)


def _wildcards(pattern: str) -> re.Pattern[str]:
    parts = []
    for place, part in enumerate(_WILD.split(pattern)):
        if place % 2 == 0:
            parts.append(re.escape(part))
        elif part.startswith('['):
            parts.append(f'([{part[1:-1].replace("!", "^", 1) if part[1] == "!" else part[1:-1]}])')
        else:
            parts.append(_REGEX.get(part, '(.*)'))
    return re.compile(''.join(parts), re.DOTALL)


def _matching(pattern: str) -> tuple[str, list[File]]:
    root, rest = _literal(pattern)
    wildcards = _wildcards(rest)
    found = {name.replace(os.sep, '/') for name in glob.glob(rest, root_dir=root, recursive=True)}
    asked = is_hidden(rest)
    names = sorted((name for name in found if asked or not is_hidden(name)), key=natural_key)
    files = []
    for name in names:
        match = wildcards.fullmatch(name)
        key = tuple(plain_name(group or '') for group in match.groups()) if match else (name,)
        files.append(File(os.path.normpath(os.path.join(root, name)), name, key))
    return root, files


@dataclass(frozen=True)
class Kinds:
    """Suffixes of files by what they hold.

    Args:
        samples: One sample (or, of an NPY file that is named itself, an array of samples).
        arrays: An array of samples.
        tables: A table, a row a sample.
        recordings: Arrays and tables that are one sample each in a folder, or where it is said so.
        apart: Whether tables are; None: in folders.
    """

    samples: Collection[str]
    arrays: Collection[str]
    tables: Collection[str]
    recordings: Collection[str] = ()
    apart: bool | None = None

    def inside(self, folder: str) -> list[File]:
        """The samples in a folder."""
        if self.apart:  # a picture beside recordings is none
            return folder_files(folder, self.recordings, self.samples)
        return folder_files(folder, self.samples, () if self.apart is False else self.recordings)

    def choose(self, files: Sequence[File]) -> list[File]:
        """Those of the files that hold data; a pattern such as ``images/*`` names others too.

        Raises:
            DataError: None does, or they hold different things.
        """
        stores = [file for file in files if os.path.isfile(file.path) or file.suffix == '.zarr']
        samples, arrays, tables = (
            [file for file in stores if file.suffix in suffixes]
            for suffixes in (self.samples, self.arrays, self.tables)
        )
        if self.apart:
            samples, tables = samples + tables, []
        if any(file not in arrays for file in samples):
            return [replace(file, sample=True) for file in samples]
        if arrays and tables:
            raise DataError(f'{arrays[0].path} and {tables[0].path} were named together, but hold different things')
        folders = [file for file in files if file not in stores]
        if not (arrays or tables or folders):
            refuse_packed(files[0].path)
            raise DataError(
                f'{files[0].path}: unknown kind of file; known are {", ".join([*self.arrays, *self.tables])}, '
                f'and a folder of {", ".join([*self.samples, *self.recordings])}'
            )
        return arrays or tables or [file for folder in folders for file in self._inside(folder)]

    def _inside(self, folder: File) -> list[File]:
        if not os.path.isdir(folder.path):
            raise DataError(f'{folder.path} is neither a file nor a folder')
        return [
            replace(file, name=f'{folder.name}/{file.name}', key=(*folder.key, *file.key))
            for file in self.inside(folder.path)
        ]


@dataclass(frozen=True)
class Text:
    """What one text names: its files, and the folder that their names start from."""

    root: str
    files: list[File]


def _absent(role: str, path: str) -> FileNotFoundError:
    root, _ = _literal(path)
    near = sorted((name for name in os.listdir(root) if not is_hidden(name)), key=natural_key)[:4]
    where = f'{root} holds {", ".join(near)}, …' if near else f'{root} is empty'
    return FileNotFoundError(f'{role}: no file or folder is called {path!r} (seen from {os.getcwd()}; {where})')


def _named(path: str, role: str, kinds: Kinds) -> Text:
    if os.path.isdir(path) and suffix_of(path) != '.zarr':
        return Text(path, kinds.inside(path))
    if os.path.exists(path):
        lone = File(path, os.path.basename(os.path.abspath(path)))
        return Text(os.path.dirname(path) or '.', kinds.choose([lone]))
    root, files = _matching(path)
    if not files:
        raise _absent(role, path)
    return Text(root, kinds.choose(files))


def find_files(text: str, role: str, kinds: Kinds) -> Text:
    """The files that a path, a folder or a pattern names; ``::member`` may stand behind it.

    Args:
        text: What the user wrote.
        role: Name of the argument, for errors.
        kinds: Which suffixes hold what.

    Raises:
        FileNotFoundError: Nothing has that name.
        DataError: What has it holds no data.
    """
    path, _, member = (text, '', '') if os.path.exists(text) else text.partition('::')
    if not path.strip() or '\0' in text:
        raise FileNotFoundError(f'{role}: {text!r} is no name of a file or folder')
    named = _named(os.path.normpath(os.path.expanduser(path)), role, kinds)
    first = named.files[0]
    if member and (first.suffix == '.npy' or (first.sample and first.suffix not in kinds.recordings)):
        raise DataError(f'{text}: files of this kind hold one array; ::{member} has no meaning')
    return replace(named, files=[replace(file, member=member) for file in named.files])


def list_files(texts: Sequence[Text]) -> list[File]:
    """The files of several texts, one after the other, known by their path below the folder that holds all of them."""
    if len(texts) == 1:
        return texts[0].files
    common = os.path.commonpath([os.path.abspath(text.root) for text in texts])
    return [
        replace(
            file,
            name=os.path.relpath(os.path.abspath(file.path), common).replace(os.sep, '/'),
            key=(str(number), *file.key),
        )
        for number, text in enumerate(texts)
        for file in text.files
    ]
