"""The fused path is held to its definition at sizes at which a network would be torch's own layers."""

import pytest

from mdnc.ops.backend import DEFAULT, TABLE


@pytest.fixture(autouse=True)
def fused_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default backend fuses small blocks too."""
    monkeypatch.setitem(TABLE, (DEFAULT, 'cpu'), TABLE[DEFAULT, 'cpu']._replace(few=False))
