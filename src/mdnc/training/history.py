"""The course of a run: one row an epoch, in a CSV file that is whole at any time and goes on with the run."""

import csv
import io
import time
from pathlib import Path

from mdnc._files import whole_file

FILE = 'metrics.csv'
Row = dict[str, float]


class History:
    """Rows of figures, kept in the checkpoints so that a continued run neither loses nor repeats one."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._started = time.monotonic()

    def start(self) -> None:
        """Begin to count the seconds of an epoch."""
        self._started = time.monotonic()

    def add(self, epoch: int, step: int, figures: Row) -> str:
        """Add an epoch's row and give it as a line to read."""
        seconds = time.monotonic() - self._started
        self.start()
        self.rows.append({'epoch': epoch, 'step': step, 'seconds': round(seconds, 3), **figures})
        words = '  '.join(f'{name} {value:.4g}' for name, value in figures.items())
        return f'epoch {epoch}  step {step}  {words}  ({seconds:.1f} s)'

    def write(self, run_dir: Path) -> None:
        """Write all rows to the run's folder."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline='')
        table = csv.DictWriter(text, names)
        table.writeheader()
        table.writerows(self.rows)
        with whole_file(run_dir / FILE) as file:
            file.write(text.getvalue().encode())


def read_history(run_dir: Path) -> list[Row]:
    """Read a run's rows; what a row doesn't have is absent from it."""
    path = run_dir / FILE
    if not path.is_file():
        return []
    with path.open(newline='') as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
