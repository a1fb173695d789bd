"""A data set larger than the memory that is allowed trains, normalisation included."""

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

SAMPLE = 2**20  # values: 4 MiB each


def write(path, count):
    with h5py.File(path, 'w') as file:
        x = file.create_dataset('x', (count, 1, SAMPLE), np.float32, chunks=(1, 1, SAMPLE // 4))
        for number in range(count):
            x[number] = np.float32(number)
        file['y'] = np.arange(count, dtype=np.float32)


@pytest.mark.slow  # 20 s, and 1 GB of disk for a while
def test_memory_does_not_grow_with_the_data(tmp_path):
    write(tmp_path / 'large.h5', 256)
    command = [sys.executable, str(Path(__file__).with_name('bounded.py')), str(tmp_path / 'large.h5'), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr
    grown = int(re.search(r'grew by (\d+) bytes', done.stdout)[1])
    print(f'1 GiB of samples, memory grew by {grown / 2**20:.0f} MiB')
    # A batch of 4 samples is 16 MiB, and each of reading, collating and normalising holds one.
    assert grown < 200 * 2**20
