"""The catalogue for tests of figures; its deep presets, more of the same blocks, are left to the slow run."""

import pytest

from tests import catalogue
from tests.catalogue import identity

QUICK = ('12', '13', '16')


def _marks(entry):
    return pytest.mark.slow if entry in catalogue.PRESETS and not entry.name.endswith(QUICK) else ()


EVERY = pytest.mark.parametrize(
    'entry', [pytest.param(entry, id=identity(entry), marks=_marks(entry)) for entry in catalogue.ENTRIES]
)
