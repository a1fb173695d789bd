"""Trains for an epoch on an HDF5 file and prints by how much the memory grew: `bounded.py FILE FOLDER`."""

import resource
import sys

import numpy as np
import torch
from torch import nn

from mdnc.training import ArrayData, Regression, Split, make_trainer


class Pooled(nn.Module):
    """Reads the whole sample at hardly any cost."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 1)

    def forward(self, x):
        return self.fc(x.mean(2))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(path, folder):
    torch.set_num_threads(1)
    small = np.random.default_rng(0).normal(size=(8, 1, 1000)).astype(np.float32)
    trainer = {'max_epochs': 1, 'accelerator': 'cpu', 'enable_progress_bar': False}
    # Everything that is loaded once is loaded by a run on a few samples.
    make_trainer(f'{folder}/small', **trainer).fit(Regression(Pooled()), ArrayData(small, small[:, 0, 0]))
    before = peak()
    data = ArrayData(f'{path}::x', f'{path}::y', batch_size=4, split=Split(0, 0))
    make_trainer(f'{folder}/large', **trainer).fit(Regression(Pooled()), data)
    print(f'grew by {peak() - before} bytes')


if __name__ == '__main__':
    main(*sys.argv[1:])
