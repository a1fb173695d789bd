"""``python -m benchmarks.volumes``: memory of ``mdnc predict`` on a volume whose answer, as a whole, is larger."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from benchmarks.results import RESULTS, Row, Setting, read, rows, write

# Spatial size, tile, and what of a tile overlaps.
FULL = ((1024, 1024, 512), 128, 0.125)
QUICK = ((512, 128, 96), 32, 0.25)
CLASSES = 4
NETWORKS = {
    'convolution': {
        'name': 'torch.nn.Conv3d',
        'arguments': {'in_channels': 1, 'out_channels': CLASSES, 'kernel_size': 3, 'padding': 1},
    },
    'UNet3d(2, [1, 1])': {
        'name': 'UNet3d',
        'arguments': {'channel': 2, 'layers': [1, 1], 'block': 'plain', 'out_planes': CLASSES},
    },
}
MEASURE = 'resident, at most'


def volume(path: Path, size: Sequence[int]) -> None:
    """Write noise in single precision, one channel, a few planes at a time."""
    chance = np.random.default_rng(0)
    file = np.lib.format.open_memmap(path, 'w+', np.float32, (1, *size))
    for start in range(0, size[0], 8):
        part = file[:, start : start + 8]
        part[:] = chance.standard_normal(part.shape, np.float32)
    file.flush()


def recipe(folder: Path, network: str) -> Path:
    """A recipe that trains a network for a step on noise."""
    chance = np.random.default_rng(1)
    x = chance.standard_normal((6, 1, 16, 16, 16), np.float32)
    np.save(folder / 'x.npy', x)
    np.save(folder / 'y.npy', np.digitize(x[:, 0], [-0.6, 0.0, 0.6]))
    data = {'inputs': str(folder / 'x.npy'), 'targets': str(folder / 'y.npy'), 'patch': [16] * 3, 'batch_size': 2}
    path = folder / 'noise.yaml'
    told = {
        'model': {'class_path': 'Segmentation', 'init_args': {'network': NETWORKS[network]}},
        'data': {'class_path': 'ArrayData', 'init_args': data},
        'trainer': {'max_epochs': 1, 'limit_train_batches': 1, 'accelerator': 'cpu', 'enable_progress_bar': False},
    }
    path.write_text(yaml.safe_dump(told))
    return path


def run(words: Sequence[str], folder: Path) -> float:
    """Run a command of mdnc in a process of its own: the most memory that it had, in bytes.

    Raises:
        RuntimeError: It failed.
    """
    call = 'import sys, mdnc.cli; sys.exit(mdnc.cli.main(sys.argv[1:]))'
    process = subprocess.Popen([sys.executable, '-c', call, *words], cwd=folder)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f'mdnc {" ".join(words)} failed')
    return used.ru_maxrss * 1024.0


def volumes(setting: Setting, network: str, volume_of: tuple[Sequence[int], int, float], folder: Path) -> list[Row]:
    """Measure the prediction of a small volume, which is what the program itself takes, and of a large one."""
    size, tile, overlap = volume_of
    run(['fit', '--config', str(recipe(folder, network)), '--trainer.default_root_dir', 'run'], folder)
    found = {}
    for name, lengths in (('one tile', [tile] * 3), ('the volume', size)):
        place = folder / f'{name.split()[-1]}.npy'
        print(f'{name}: {" × ".join(map(str, lengths))}', flush=True)
        volume(place, lengths)
        words = ['--data.predict', str(place), '--data.order', '3']
        words += ['--data.patch', str([tile] * 3), '--data.overlap', str(overlap)]
        found[name] = run(['predict', '--config', 'run', *words, '--output', f'{place.stem}.h5'], folder)
        place.unlink()
    case = f'{network}, {" × ".join(map(str, size))}, {CLASSES} classes, tiles {tile}³'
    baseline = ['one tile']
    return rows(setting, case, MEASURE, {name: [most] for name, most in found.items()}, baseline)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, write the CSV, in which the rows of other networks stay."""
    parser = argparse.ArgumentParser('python -m benchmarks.volumes', description=__doc__)
    parser.add_argument('--quick', action='store_true', help=f'a volume of {" × ".join(map(str, QUICK[0]))}')
    parser.add_argument(
        '--network', choices=NETWORKS, default='convolution', help='what answers (default: %(default)s)'
    )
    parser.add_argument('--folder', type=Path, help='where the volume lies meanwhile; 2 GiB, and its classes 1 GiB')
    given = parser.parse_args(arguments)
    setting = Setting('volumes', 'cpu', len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = volumes(setting, given.network, QUICK if given.quick else FULL, Path(folder))
    path = (RESULTS / 'quick' if given.quick else RESULTS) / 'volumes-cpu.csv'
    others = [row for row in read(path) if row.case != found[0].case] if path.is_file() else []
    write(path, [*others, *found])
    for row in found:
        print(f'{row.case}, {row.contender}: {row.measure} {row.median:.4g}', flush=True)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
