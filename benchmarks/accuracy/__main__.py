"""Run what is not in the CSV yet, and put the table into docs/accuracy.md.

pip install --no-deps -r benchmarks/accuracy.txt
python -m benchmarks.accuracy --form quick     # under an hour on 2 cores
python -m benchmarks.accuracy --form full
python -m benchmarks.accuracy --seeds 3 4 5 --results other.csv   # again, with other seeds
"""

import argparse
from pathlib import Path

from benchmarks.accuracy.jobs import average_all, jobs, run_all
from benchmarks.accuracy.methods import FORMS
from benchmarks.accuracy.results import PAGE, RESULTS, put, read, table
from benchmarks.accuracy.sets import SETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--form', choices=FORMS, default='quick', help='how many steps each network is trained')
    parser.add_argument('--sets', nargs='*', choices=[each.name for each in SETS], default=[each.name for each in SETS])
    parser.add_argument(
        '--seeds', nargs='+', type=int, default=[0, 1, 2], help='runs of each network: consecutive numbers'
    )
    parser.add_argument('--workers', type=int, default=2, help='processes side by side, each with one thread')
    parser.add_argument('--results', type=Path, default=RESULTS, help='the CSV; the page is made of the default one')
    parser.add_argument('--page', action='store_true', help='run nothing: only make the page from the CSV')
    given = parser.parse_args()
    if given.seeds != list(range(given.seeds[0], given.seeds[-1] + 1)):
        parser.error(f'--seeds must be consecutive numbers, got {given.seeds}')
    if not given.page:
        sets = [each for each in SETS if each.name in given.sets]
        run_all(list(jobs(sets, given.form, given.seeds, given.results)), given.workers, given.results)
        average_all(sets, given.form, given.seeds, given.results)
    rows = read(given.results)
    print(table(row for row in rows if row.form == given.form))
    if given.results == RESULTS:
        put(PAGE, rows)


if __name__ == '__main__':
    main()
