"""Which instructions compute here: those of the processor, less what the environment has oneDNN do without.

oneDNN computes torch's convolutions and products of half types. It follows ``ONEDNN_MAX_CPU_ISA`` (or its older name
``DNNL_MAX_CPU_ISA``), and not ``ATEN_CPU_CAPABILITY``, which is of torch's other kernels: a 3 × 3 convolution of
bfloat16 took 258 ms with the former at AVX2, and 1.9 ms with the latter at its lowest, as with neither. The C++ of this
package is compiled for the processor as it is.
"""

import functools
import os
import platform
from pathlib import Path

import torch

# What each of oneDNN's sets of instructions adds to those before it, as Linux names it. Sets that are not here, such as
# ALL, leave nothing out.
_SETS: dict[str, tuple[str, ...]] = {
    'SSE41': (),
    'AVX': ('avx',),
    'AVX2': ('avx2',),
    'AVX2_VNNI': ('avx_vnni',),
    'AVX2_VNNI_2': ('avx_ne_convert',),
    'AVX512_CORE': ('avx512f',),
    'AVX512_CORE_VNNI': ('avx512_vnni',),
    'AVX512_CORE_BF16': ('avx512_bf16',),
    'AVX512_CORE_FP16': ('avx512_fp16',),
    'AVX512_CORE_AMX': ('amx_bf16',),
    'AVX512_CORE_AMX_FP16': ('amx_fp16',),
}
_VARIABLES = ('ONEDNN_MAX_CPU_ISA', 'DNNL_MAX_CPU_ISA')
# Which multiply values of a half type: of x86 and of ARM.
_OF_HALF_TYPES = {
    torch.bfloat16: ('avx512_bf16', 'amx_bf16', 'bf16'),
    torch.float16: ('avx512_fp16', 'amx_fp16', 'asimdhp'),
}


def flags() -> str:
    """The processor's sets of instructions, as far as the system tells."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return next((line for line in lines if line.startswith(('flags', 'Features'))), platform.machine())


@functools.cache
def lanes() -> int:
    """Values in float32 of this processor's vectors, as far as the system tells, else 4; before anything is built."""
    found = flags().split()
    return 16 if 'avx512f' in found else 8 if 'avx' in found else 4


@functools.cache
def onednn_has(*names: str) -> bool:
    """Whether oneDNN may use one of these sets of instructions, and the processor has it."""
    return not _allowed().isdisjoint(names)


def _allowed() -> set[str]:
    chosen = next((os.environ[each].upper() for each in _VARIABLES if os.environ.get(each)), '')
    beyond = [*_SETS][[*_SETS].index(chosen) + 1 :] if chosen in _SETS else []
    return {*flags().split()}.difference(*(_SETS[each] for each in beyond))


def multiplies(dtype: torch.dtype) -> bool:
    """Whether convolutions of this half type have instructions of their own; without them they are very slow."""
    available = torch.backends.mkldnn.enabled and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(available) and onednn_has(*_OF_HALF_TYPES[dtype])


HALF_TYPES = (*_OF_HALF_TYPES,)
