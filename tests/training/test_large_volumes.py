"""A volume is read and answered a part at a time, so that neither it nor its answer need fit into memory."""

import numpy as np
import pytest
import torch
from tests.training.memory_growth import growth
from torch import nn

from mdnc.training import ArrayData, DenseRegression, make_trainer
from mdnc.training.prediction import PredictionWriter

_RUN = """
def run(size, name):
    file = np.lib.format.open_memmap(f'{sys.argv[1]}/{name}.npy', 'w+', np.float32, (1, 1, *size))
    del file
    few = np.zeros((8, 1, 32, 32, 32), np.float32)
    data = ArrayData(few, predict=f'{sys.argv[1]}/{name}.npy', patch=[32, 32, 32], normalise=False)
    callbacks = [PredictionWriter(f'{sys.argv[1]}/{name}.h5')]
    trainer = make_trainer(sys.argv[1], accelerator='cpu', callbacks=callbacks, enable_progress_bar=False)
    trainer.predict(Segmentation(nn.Conv3d(1, 4, 1)), data, return_predictions=False)
"""


@pytest.mark.slow
def test_memory_is_that_of_a_row_of_tiles(tmp_path):
    # The volume is 84 MB, which was held twice; its scores are 336 MB. A row of tiles has 42 MB, its blending as much.
    assert growth(_RUN, tmp_path) < 250e6


class First(nn.Module):
    """Writes to what it is given, as a first layer that works in place does."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(1, 1, 1)

    def forward(self, x):
        return x.mul_(2)


def test_a_network_that_works_in_place_changes_no_file(tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 1, 40)).astype('f4')
    np.save(tmp_path / 'x.npy', x)
    few = np.zeros((9, 1, 40), np.float32)
    data = ArrayData(few, predict=tmp_path / 'x.npy', patch=[40], normalise=False)
    data.setup()
    batch = next(iter(data.predict_dataloader()))
    assert batch['input'].shape == (1, 1, 40)
    trainer = make_trainer(
        tmp_path, accelerator='cpu', callbacks=[PredictionWriter(tmp_path / 'p.npz')], enable_progress_bar=False
    )
    trainer.predict(DenseRegression(First()), data, return_predictions=False)
    np.testing.assert_allclose(np.load(tmp_path / 'p.npz')['prediction'], 2 * x)
    assert np.array_equal(np.load(tmp_path / 'x.npy'), x)


def test_arrays_in_memory_and_targets_are_no_part_of_a_batch(tmp_path):
    x = np.zeros((6, 1, 16), np.float32)
    data = ArrayData(x, x.copy(), patch=[8], normalise=False)
    data.setup()
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        for batch in loader:
            batch['input'] += 1
            batch['target'] += 1
    assert not x.any()
    assert torch.equal(next(iter(data.test_dataloader()))['input'], torch.zeros(1, 1, 16))
