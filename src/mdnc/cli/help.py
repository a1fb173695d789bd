"""What the class of a task or of data can be told, in a line or two for each argument."""

import importlib
import inspect
import re
import textwrap
from dataclasses import is_dataclass
from typing import Any

import lightning as L

from mdnc import training
from mdnc.cli import UsageError
from mdnc.cli.networks import ARGUMENT, near
from mdnc.training.tasks import Task

BASES: dict[str, type] = {'model': Task, 'data': L.LightningDataModule}


def class_help(owner: str, name: str) -> str:
    """Describe a class and its arguments.

    Args:
        owner: ``'model'`` or ``'data'``.
        name: The class, by its name or by its full name; nothing lists the classes.

    Raises:
        UsageError: There is no such class.
    """
    if not name:
        rows = [f'  {word:<16} {_sentence(kind)}' for word, kind in sorted(known_classes(owner).items())]
        return '\n'.join([f'--{owner} CLASS, or the full name of your own; --{owner}.help CLASS says more', *rows])
    record = _records(owner).get(name)
    kind = record or find_class(owner, name)
    words, place = _words(kind), f'{owner}.{name.lower()}' if record else owner
    lines = [f'--{place}: {_sentence(kind)}' if record else f'--{owner} {name}: {_sentence(kind)}', '']
    for argument, parameter in parameters(kind).items():
        value = getattr(record(), argument) if record else parameter.default
        text = f'  --{place}.{argument}  {_default(owner, value)}  {words.get(argument, "")}'
        lines += textwrap.wrap(text, 118, subsequent_indent=' ' * 8, break_on_hyphens=False)
    return '\n'.join(lines)


def _records(owner: str) -> dict[str, type]:
    """The records that stand for an argument of the classes, with words of their own, by name."""
    kinds = [find_class(owner, name) for name in known_classes(owner)]
    found = {type(parameter.default) for kind in kinds for parameter in parameters(kind).values()}
    return {kind.__name__: kind for kind in found if is_dataclass(kind)}


def known_classes(owner: str) -> dict[str, type]:
    """The classes of this library, and of what was imported, that may stand there."""
    found, left = {}, [BASES[owner]]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        if kind.__name__ in training.__all__ or not kind.__module__.startswith(('mdnc.', 'lightning.')):
            found[kind.__name__] = kind
    return found


def find_class(owner: str, name: str) -> type:
    """A class by its name.

    Raises:
        UsageError: There is none.
    """
    known = known_classes(owner)
    module, _, attribute = name.rpartition('.')
    try:
        found = getattr(importlib.import_module(module), attribute) if module else known.get(name)
    except (ImportError, AttributeError):
        found = None
    if not isinstance(found, type):
        raise UsageError(f'--{owner}: there is no class called {name}: {near(name, known)}')
    return found


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class by name, with those that it hands on to its base classes."""
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(kind.__mro__):
        if '__init__' in vars(base) and base.__module__.startswith(('mdnc.', kind.__module__)):
            own = list(inspect.signature(base).parameters.values())
            handed_on = found if any(each.kind is each.VAR_KEYWORD for each in own) else {}
            found = handed_on | {each.name: each for each in own if each.kind is each.POSITIONAL_OR_KEYWORD}
    return found


def _words(kind: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        said = ARGUMENT.findall((inspect.getdoc(base) or '').partition('Args:\n')[2].partition('\n\n')[0])
        found |= {name: _plain(text) for name, text in said if not text.startswith('See ')}
    return found


def _default(owner: str, value: Any) -> str:
    if value is inspect.Parameter.empty:
        return '(needed)'
    if is_dataclass(value):
        return f'(words of its own: --{owner}.help {type(value).__name__})'
    return f'(default: {"null" if value is None else value})'


def _sentence(kind: type) -> str:
    return _plain((inspect.getdoc(kind) or '').partition('\n\n')[0])


def _plain(text: str) -> str:
    return re.sub(r'`+', '', ' '.join(text.split()))
