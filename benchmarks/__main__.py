"""``python -m benchmarks``: measure, print tables, write CSVs."""

import argparse
from pathlib import Path

import torch

from benchmarks.page import tables
from benchmarks.parts import PARTS
from benchmarks.results import RESULTS, Setting, write


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser('python -m benchmarks', description=__doc__)
    parser.add_argument('--quick', action='store_true', help='fewer contenders and rounds: minutes, not two hours')
    parser.add_argument('--parts', nargs='+', choices=PARTS, help='parts to run; by default all but the peers')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of torch')
    parser.add_argument('--out', type=Path, help='folder of the CSVs')
    given = parser.parse_args(arguments)
    out = given.out or (RESULTS / 'quick' if given.quick else RESULTS)
    default = ['networks', 'start'] if given.quick else [name for name in PARTS if name != 'peers']
    for name in given.parts or default:
        found = []
        for row in PARTS[name](Setting(name, given.device, given.threads), given.quick):
            found.append(row)
            write(out / f'{name}-{given.device}.csv', found)
        print(tables(found), flush=True)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
