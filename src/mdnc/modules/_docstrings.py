"""Docstrings and signatures of the 1-D, 2-D and 3-D classes, completed from the generic class."""

import inspect
import textwrap

from mdnc.modules import _options

_EXAMPLE = '\n\nExample:'


def describe(cls: type) -> None:
    """Complete the docstring of a class, and the signature behind its ``**options``.

    The docstring gets the sections from ``Args:`` on of the nearest base class that has them, before its own example,
    and a line for each option.
    """
    kind = _options.of(cls.__init__)  # type: ignore[misc]
    if kind is not None and '__init__' in cls.__dict__:
        whole = _options.signature(cls.__init__, kind)  # type: ignore[misc]
        words = list(whole.parameters.values())[1:]
        cls.__signature__ = whole.replace(parameters=words, return_annotation=whole.empty)  # type: ignore[attr-defined]
    own = inspect.cleandoc(cls.__doc__ or '')
    if own and 'Args:' not in own:
        head, *example = own.partition(_EXAMPLE)
        inherited = next((sections for base in cls.__mro__[1:] if (sections := _sections(base))), '')
        own = head + inherited + ''.join(example)
    if kind is not None and '**options:' in own:
        own = own.replace(_line(own, '**options:'), textwrap.indent(_options.described(kind), '    '))
    cls.__doc__ = own or None


def _sections(base: type) -> str:
    _, mark, sections = inspect.cleandoc(base.__doc__ or '').partition('Args:')
    return f'\n\nArgs:{sections.partition(_EXAMPLE)[0].rstrip()}' if mark else ''


def _line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))
