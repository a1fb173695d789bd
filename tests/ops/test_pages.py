"""Advice on pages changes no value, and asks for nothing outside the buffer."""

import ctypes
from collections.abc import Callable

import pytest
import torch
from torch._subclasses import FakeTensorMode

from mdnc.ops import pages


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []

    def madvise(start: ctypes.c_void_p, size: ctypes.c_size_t, advice: int) -> None:
        calls.append((start.value or 0, size.value))

    functions: dict[str, Callable[..., None]] = {'madvise': madvise}
    monkeypatch.setattr(pages, '_function', functions.get)
    return calls


@pytest.mark.parametrize('extra', [0, 64, pages.LARGE_BYTES, 3 * pages.LARGE_BYTES + 12])
def test_whole_pages_inside_a_large_buffer(extra: int, asked: list[tuple[int, int]]):
    fresh = torch.empty(pages.LARGE_BYTES + extra, dtype=torch.uint8)
    assert pages.in_huge_pages(fresh) is fresh
    ((start, size),) = asked
    assert start % 2**21 == size % 2**21 == 0
    assert fresh.data_ptr() <= start
    assert start + size <= fresh.data_ptr() + fresh.nbytes


def test_small_and_fake_ones_are_left_alone(asked: list[tuple[int, int]]):
    pages.in_huge_pages(torch.empty(pages.LARGE_BYTES - 1, dtype=torch.uint8))
    with FakeTensorMode():
        pages.in_huge_pages(torch.empty(pages.LARGE_BYTES))
    assert asked == []


def test_the_systems_own_call_keeps_values_and_memory():
    fresh = pages.in_huge_pages(torch.empty(2**21, dtype=torch.float32))
    assert fresh.fill_(3).sum().item() == 3 * 2**21
    pages.keep()
    assert torch.ones(2**21).sum().item() == 2**21
