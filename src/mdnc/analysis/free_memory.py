"""How much memory is free now."""

import os
from pathlib import Path

import torch

_CGROUPS = ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes')


def free_bytes(device: str) -> int:
    """Bytes that are free now on a device; of main memory, those that this process may still take."""
    if device == 'cuda':
        return int(torch.cuda.mem_get_info()[0])
    free = [os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')] if hasattr(os, 'sysconf') else []
    available = Path('/proc/meminfo')
    if available.is_file():
        lines = dict(line.split(':', 1) for line in available.read_text().splitlines() if ':' in line)
        free = [int(lines['MemAvailable'].split()[0]) * 1024] if 'MemAvailable' in lines else free
    for path in map(Path, _CGROUPS):
        text = path.read_text().strip() if path.is_file() else ''
        free += [int(text)] if text.isdigit() else []
    return min(free, default=2**32)
