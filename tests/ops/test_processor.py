"""Which instructions are used: those of the processor, less what oneDNN is told to do without."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
import torch

from mdnc.ops import processor

EVERY = 'flags : fpu avx avx2 avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_fp16'
ARM = 'Features : fp asimd asimdhp bf16'
BFLOAT16, FLOAT16 = torch.bfloat16, torch.float16


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ('ONEDNN_MAX_CPU_ISA', 'DNNL_MAX_CPU_ISA'):
        monkeypatch.delenv(name, raising=False)
    processor.onednn_has.cache_clear()
    processor.lanes.cache_clear()
    yield
    processor.onednn_has.cache_clear()
    processor.lanes.cache_clear()


def multiplied() -> list[torch.dtype]:
    return [each for each in processor.HALF_TYPES if processor.multiplies(each)]


@pytest.mark.parametrize(
    ('machine', 'name', 'value', 'expected'),
    [
        (EVERY, 'ONEDNN_MAX_CPU_ISA', '', [BFLOAT16, FLOAT16]),
        (EVERY, 'ONEDNN_MAX_CPU_ISA', 'ALL', [BFLOAT16, FLOAT16]),
        (EVERY, 'ONEDNN_MAX_CPU_ISA', 'AVX512_CORE_BF16', [BFLOAT16]),
        (EVERY, 'ONEDNN_MAX_CPU_ISA', 'AVX512_CORE_VNNI', []),
        (EVERY, 'ONEDNN_MAX_CPU_ISA', 'avx2', []),
        (EVERY, 'DNNL_MAX_CPU_ISA', 'SSE41', []),
        (EVERY, 'ATEN_CPU_CAPABILITY', 'default', [BFLOAT16, FLOAT16]),
        ('flags : avx avx2 avx512f avx512_bf16', 'ONEDNN_MAX_CPU_ISA', 'ALL', [BFLOAT16]),
        ('flags : avx avx2', 'ONEDNN_MAX_CPU_ISA', '', []),
        (ARM, 'ONEDNN_MAX_CPU_ISA', '', [BFLOAT16, FLOAT16]),
        ('', 'ONEDNN_MAX_CPU_ISA', '', []),
    ],
)
def test_half_types_have_the_instructions_that_onednn_may_use(machine, name, value, expected, monkeypatch):
    monkeypatch.setattr(processor, 'flags', lambda: machine)
    monkeypatch.setenv(name, value)
    assert multiplied() == expected


def test_without_onednn_half_types_have_none(monkeypatch):
    monkeypatch.setattr(processor, 'flags', lambda: EVERY)
    assert multiplied() == [BFLOAT16, FLOAT16]
    before = torch.backends.mkldnn.set_flags(_enabled=False, _fp32_precision=None)
    try:
        assert multiplied() == []
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before[0], _fp32_precision=None)


@pytest.mark.parametrize(('machine', 'lanes'), [(EVERY, 16), ('flags : avx avx2', 8), (ARM, 4)])
def test_vectors_are_as_wide_as_the_processor_has_them(machine, lanes, monkeypatch):
    monkeypatch.setattr(processor, 'flags', lambda: machine)
    assert processor.lanes() == lanes


ROUTES = """
    import torch
    from mdnc.ops import convolution
    z, kernel, still = torch.zeros(1, 16, 6, 6), torch.zeros(16, 16, 3, 3), convolution.Geometry((1, 1), (1, 1))
    print(*(convolution.is_slow(z.to(each), kernel, still, convolution.TORCH) for each in (torch.bfloat16, torch.half)))
"""


@pytest.mark.parametrize(
    ('name', 'value'),
    [('ONEDNN_MAX_CPU_ISA', 'AVX2'), ('DNNL_MAX_CPU_ISA', 'AVX512_CORE'), ('ATEN_CPU_CAPABILITY', 'default')],
)
def test_convolutions_of_half_types_follow_the_environment(name: str, value: str):
    command = [sys.executable, '-c', textwrap.dedent(ROUTES)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {name: value})
    slow = [str(not has) for has in map(processor.multiplies, processor.HALF_TYPES)]  # of this process
    assert done.stdout.split() == (slow if name.startswith('ATEN') else ['True', 'True'])
