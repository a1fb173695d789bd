"""What is public: the names that packages list, what they are, and where their source stands."""

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    'mdnc',
    'mdnc.modules.resnet',
    'mdnc.modules',
    'mdnc.contribs.torchsummary',
    'mdnc.ops',
    'mdnc.analysis',
    'mdnc.checkpoints',
    'mdnc.export',
    'mdnc.training',
    'mdnc.planning',
)
# What packages give without listing it, since it needs an extra.
GIVEN = {'mdnc.training': ('NetClassifier', 'NetRegressor')}
SOURCES = Path(__file__).parents[2] / 'src'


@dataclass(frozen=True)
class Member:
    """A public class, function or preset.

    Args:
        package: The package that lists it.
        name: Its name there.
        value: What it is.
    """

    package: str
    name: str
    value: Any

    @property
    def path(self) -> str:
        """Its name as a user writes it."""
        return f'{self.package}.{self.name}'

    @property
    def page(self) -> str:
        """Path of its page below ``reference/``, without ending."""
        return f'{self.package.removeprefix("mdnc.")}/{self.name}'

    @property
    def title(self) -> str:
        """Its name without that of the library."""
        return self.path.removeprefix('mdnc.')

    @property
    def is_class(self) -> bool:
        """Whether it is a class."""
        return inspect.isclass(self.value)

    @property
    def is_preset(self) -> bool:
        """Whether it is a row of data that makes a network when it is called."""
        return not self.is_class and not inspect.isroutine(self.value)

    @cached_property
    def source(self) -> tuple[Path, int]:
        """The file of its source, below `SOURCES`, and the line."""
        if self.is_preset:
            return _assigned(self.value, self.name)
        target = inspect.unwrap(self.value)
        _, line = inspect.getsourcelines(target)
        return Path(inspect.getsourcefile(target) or '').relative_to(SOURCES), max(line, 1)

    @property
    def words(self) -> str:
        """Its docstring."""
        return inspect.cleandoc(self.value.__doc__ or '')

    @property
    def faces(self) -> dict[int, str]:
        """Names of the same thing by number of spatial axes, where there are several."""
        found = re.fullmatch(r'(.*)([123])d', self.name)
        return {order: f'{found[1]}{order}d' for order in (1, 2, 3)} if found else {}


def members() -> list[Member]:
    """All that is public, each once: in the package that lists it nearest to where it is made."""
    found: dict[int, Member] = {}
    for package in PACKAGES:
        for member in _listed(package):
            known = found.get(id(member.value))
            if known is None or len(package) > len(known.package):
                found[id(member.value)] = member
    return sorted(found.values(), key=lambda member: (PACKAGES.index(member.package), member.name.lower()))


def _listed(package: str) -> Iterator[Member]:
    module = importlib.import_module(package)
    for name in (*module.__all__, *GIVEN.get(package, ())):
        value = getattr(module, name)
        if not inspect.ismodule(value) and not isinstance(value, str | int | tuple):
            yield Member(package, name, value)


def _assigned(value: Any, name: str) -> tuple[Path, int]:
    # Several presets may be assigned in one line, in which each name is a word.
    path = Path(inspect.getsourcefile(type(value)) or '')
    lines = path.read_text(encoding='utf-8').splitlines()
    line = next(number for number, text in enumerate(lines, 1) if re.search(rf'^[\w, ]*\b{name}\b[\w, ]*=', text))
    return path.relative_to(SOURCES), line


@dataclass(frozen=True)
class Attribute:
    """A method or property of a class.

    Args:
        name: Its name.
        value: The function behind it.
        kind: ``'property'``, ``'method'`` or ``'class method'``.
        owner: The class that defines it.
    """

    name: str
    value: Any
    kind: str
    owner: type

    @property
    def words(self) -> str:
        """Its docstring."""
        return inspect.cleandoc(self.value.__doc__ or '')


def attributes(cls: type) -> list[Attribute]:
    """The documented methods and properties of a class that the library itself defines, in the order of their bases."""
    found: dict[str, Attribute] = {}
    for base in reversed(cls.__mro__):
        for name, held in vars(base).items() if base.__module__.split('.')[0] == 'mdnc' else ():
            attribute = _attribute(name, held, base)
            if attribute is not None and attribute.words:
                found[name] = attribute
            else:
                found.pop(name, None)
    return list(found.values())


def _attribute(name: str, held: Any, owner: type) -> Attribute | None:
    if name.startswith('_') and name != '__call__':
        return None
    if isinstance(held, property):
        return Attribute(name, held.fget, 'property', owner)
    if isinstance(held, classmethod | staticmethod):
        return Attribute(name, held.__func__, 'class method' if isinstance(held, classmethod) else 'method', owner)
    return Attribute(name, held, 'method', owner) if inspect.isfunction(held) else None


def is_network(value: Any) -> bool:
    """Whether it is a class of modules."""
    return inspect.isclass(value) and issubclass(value, torch.nn.Module)
