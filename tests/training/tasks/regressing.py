"""A regression with unknown targets, trained and tested in as many processes as asked; run by `test_processes`."""

import json
import sys
from pathlib import Path

import lightning as L
import numpy as np

from mdnc.training import ArrayData, Regression, Split, make_trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(61, 1, 32)).astype('f4')
Y = np.stack([X.std((1, 2)), 100 * X.mean((1, 2))], 1)
Y[::3, 0] = np.nan
NET = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_length': 2}}


class Counted(ArrayData):
    """Says in which process its figures were asked for."""

    @property
    def facts(self):
        rank = self.trainer.global_rank
        Path(self.folder, f'asked-{rank}').touch()
        return super().facts


def main(folder, devices):
    L.seed_everything(1, verbose=False)
    data = Counted(X, Y, batch_size=8, missing=True, split=Split(0.2, 0.3))
    data.folder = folder
    task = Regression(NET, names=['spread', 'level'])
    options = {'devices': devices, 'strategy': 'ddp'} if devices > 1 else {}
    trainer = make_trainer(folder, max_epochs=1, accelerator='cpu', enable_progress_bar=False, **options)
    trainer.fit(task, data)
    figures = trainer.test(task, data, verbose=False)[0]
    Path(folder, f'facts-{trainer.global_rank}.json').write_text(json.dumps(task.facts))
    if trainer.is_global_zero:
        [(predicted, truth)] = task._kept
        table, found = task.evaluation()
        judged = {'numbers': table.numbers, 'losses': table.losses, 'names': table.names}
        judged['worst'] = [each.place for each in table.worst]
        judged['interval'] = list(vars(found.each['spread']['rmse']).values())
        np.savez(Path(folder, 'end.npz'), predicted=predicted, truth=truth, seen=task._seen, **judged, **figures)


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
