"""Docstrings of the 1-D, 2-D and 3-D faces: a sentence of their own, the words of the generic class."""

import inspect


def inherit_sections(cls: type) -> None:
    """Append to the docstring of ``cls`` the sections from ``Args:`` on of the nearest base that has them."""
    own = inspect.cleandoc(cls.__doc__ or '')
    if not own or 'Args:' in own:
        return
    for base in cls.__mro__[1:]:
        _, mark, sections = inspect.cleandoc(base.__doc__ or '').partition('Args:')
        if mark:
            cls.__doc__ = f'{own}\n\nArgs:{sections}'
            return
