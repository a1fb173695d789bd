"""Values in the texts of errors."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3  # with six items each, six levels would still be fifty thousand


def short_repr(value: object) -> str:
    """The `repr` of a value of any size, cut to a line or two.

    Example:
        >>> short_repr([1] * 1000)
        '[1, 1, 1, 1, 1, 1, ...]'
    """
    return _SHORT.repr(value)
