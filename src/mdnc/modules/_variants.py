"""The 1-D, 2-D and 3-D classes of a network, whose names in one module differ in the digit before the d."""

import re
import sys
from typing import Any

_FACE = re.compile(r'(.+)([123])d$')


def order_of(cls: type) -> int | None:
    """Number of spatial axes of such a class; ``None`` for other classes."""
    found = _FACE.match(cls.__name__)
    return int(found[2]) if found else None


def face(cls: type, order: int) -> Any:
    """The class of the same network with ``order`` spatial axes; ``None`` if there is none."""
    found = _FACE.match(cls.__name__)
    return getattr(sys.modules[cls.__module__], f'{found[1]}{order}d', None) if found else None
