"""Plan what was made, a row each, and write the tables of the page.

python -m benchmarks.planning            # what is not in the CSVs yet; ten minutes on 2 cores
python -m benchmarks.planning --page     # puts the CSVs into docs/planning.md
"""

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.planning.made import CASES, GIB, KNOWN, Case, Known
from mdnc.planning import Budget, plan
from mdnc.planning.design import unet_design
from mdnc.planning.resources import Job, training_bytes
from mdnc.training.tasks.network import build_network

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / 'benchmarks' / 'results'
PAGE = ROOT / 'docs' / 'planning.md'
_SMALL = 300 * 2**20  # bytes of a step that is run for real
_LAYERS = (1, 3, 4, 6, 6, 6, 6)  # of nnU-Net's residual encoder


def planned_row(case: Case) -> dict[str, Any]:
    """A plan of a case: what it gives, takes, and how long planning took."""
    budget = Budget(memory=int(case.gibibytes * GIB), device='cpu')
    start = time.process_time()
    made = plan(case.data, budget)
    seconds = time.process_time() - start
    with torch.device('meta'):
        network = build_network(made.recipe['model']['init_args']['network'])
    window = tuple(made.forecast['window'])
    error = ''
    if made.forecast['bytes'] < _SMALL:
        error = plan(case.data, budget, check=True).measured['check']['error']
    return {
        'data': case.name,
        'budget_gib': case.gibibytes,
        'task': made.words['model.class_path'],
        'window': _by(window),
        'gives': _by(network.output_size(window)),
        'batch': made.forecast['batch'],
        'channels': made.forecast['width'],
        'level': made.forecast['level'],
        'bytes': made.forecast['bytes'],
        'share': made.forecast['share'],
        'bound': made.forecast['bound'],
        'real_step_error': error,
        'planning_seconds': round(seconds, 1),
    }


def known_row(known: Known) -> dict[str, Any]:
    """nnU-Net's plan beside ours for its residual network, and for the one that we would take."""
    data, budget = known.case.data, Budget(memory=8 * GIB, device='cpu')
    words = residual_words(known)
    network = {'name': 'UNet3d', 'arguments': {**words, 'in_planes': data.channels, 'out_planes': data.target.outputs}}
    with torch.device('meta'):
        net = build_network({**network, 'arguments': {**network['arguments'], 'memory': 'plain'}})
    job = Job('Segmentation', data.channels, data.target.outputs)
    theirs = training_bytes(
        net, known.patch, known.batch, job, Budget(memory=8 * GIB, device='cpu', optimizer='momentum')
    )
    given = {f'model.network.arguments.{word}': value for word, value in words.items()}
    same, own = plan(data, budget, {**given}), plan(data, budget)
    return {
        'data': known.case.name,
        'nnunet_patch': _by(known.patch),
        'nnunet_batch': known.batch,
        'nnunet_network': 'residual' if known.residual else 'plain',
        'nnunet_residual_gib': round(theirs / GIB, 2),
        'ours_same_network': _by(tuple(same.forecast['window'])),
        'ours_same_batch': same.forecast['batch'],
        'ours_same_level': same.forecast['level'],
        'ours': _by(tuple(own.forecast['window'])),
        'ours_batch': own.forecast['batch'],
        'ours_level': own.forecast['level'],
    }


def residual_words(known: Known) -> dict[str, Any]:
    """nnU-Net's residual encoder for a patch, in pre-activation order, as ``resenc_m`` has it."""
    design = unet_design(known.patch, known.case.data.spacing)
    depth = len(design.kernels)
    return {
        'channel': 32,
        'layers': list(_LAYERS[:depth]),
        'up_layers': [1, *[0] * (depth - 2)],
        'block': 'plain',
        'kernel_size': [list(each) for each in design.kernels],
        'strides': [list(each) for each in design.strides],
        'max_channel': 320,
        'activator': 'leaky_relu',
        'resize_at': 'first',
        'shortcut': 'pool',
        'bias': True,
    }


def _by(size: tuple[int, ...]) -> str:
    return '×'.join(map(str, size))


def run(path: Path, cases: list[Any], row: Callable[[Any], dict[str, Any]], name: Callable[[Any], str]) -> None:
    """Rows of the cases that a CSV lacks, added one by one."""
    rows = list(read(path))
    done = {each['data'] for each in rows}
    for case in cases:
        if name(case) in done:
            continue
        rows.append({key: str(value) for key, value in row(case).items()})
        with path.open('w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(*rows[-1].values(), flush=True)


def read(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV, none where it is not there."""
    if path.is_file():
        with path.open(newline='', encoding='utf-8') as file:
            yield from csv.DictReader(file)


def table(rows: list[dict[str, str]], columns: dict[str, str]) -> str:
    """Rows as a table of Markdown."""
    lines = [f'| {" | ".join(columns.values())} |', '|' + '---|' * len(columns)]
    lines += [f'| {" | ".join(row[name].replace("×", " × ") for name in columns)} |' for row in rows]
    return '\n'.join(lines)


_COLUMNS = {
    'planning': {
        'data': 'data',
        'budget_gib': 'budget, GiB',
        'task': 'task',
        'window': 'window',
        'batch': 'batch',
        'share': 'share used',
        'bound': 'bound by',
    },
    'planning-nnunet': {
        'data': 'data',
        'nnunet_patch': "nnU-Net's patch",
        'nnunet_batch': 'batch',
        'nnunet_residual_gib': 'its residual network there, plain, GiB',
        'ours_same_network': 'that network, planned here',
        'ours_same_batch': 'batch',
        'ours': 'the network planned here',
        'ours_batch': 'batch',
    },
}


def write_page(page: Path) -> None:
    """Put the tables between their marks."""
    text = page.read_text(encoding='utf-8')
    for name, columns in _COLUMNS.items():
        start, end = f'<!-- {name} -->', f'<!-- end of {name} -->'
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f'{before}{start}\n\n{table(list(read(RESULTS / f"{name}.csv")), columns)}\n\n{end}{after}'
    page.write_text(text, encoding='utf-8')


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser('python -m benchmarks.planning', description=__doc__)
    parser.add_argument('--page', action='store_true', help='write the tables of the page')
    given = parser.parse_args(arguments)
    if given.page:
        write_page(PAGE)
        return 0
    run(RESULTS / 'planning-nnunet.csv', KNOWN, known_row, lambda known: known.case.name)
    run(RESULTS / 'planning.csv', CASES, planned_row, lambda case: case.name)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
