"""Metrics of a run: one row per epoch, in a CSV file that is always complete and continues with the run."""

import csv
import io
import time
from pathlib import Path
from typing import Any

from mdnc._files import whole_file

FILE = 'metrics.csv'
_SHOWN = 12
_LATEST = 5  # number of epochs from which the remaining time is estimated
Row = dict[str, float]


def duration(seconds: float) -> str:
    """A duration as text.

    Example:
        >>> duration(9.94), duration(75), duration(7260)
        ('9.9 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min'


def shown(figures: Row, first: str = '', file: str = FILE) -> str:
    """Metrics as text: all, or if there are many a selection and the number of others.

    Args:
        figures: The metrics by name.
        first: Name of the metric that is always shown.
        file: Name of the file with all of them.

    Example:
        >>> shown({'val/rmse': 0.5, 'val/loss': 0.25, **{f'val/rmse_{n}': 0.5 for n in range(48)}})
        'val/rmse 0.5  val/loss 0.25  (48 more in metrics.csv)'
    """
    names = list(figures)
    if len(names) > _SHOWN:
        sums = [name for name in names if not any(name.startswith(f'{other}_') for other in names)]
        kept = sorted(sums, key=lambda name: name != first and not name.endswith('/loss') and name != 'lr')[:_SHOWN]
        names = [name for name in names if name in kept]
    words = [f'{name} {figures[name]:.4g}' for name in names]
    left = len(figures) - len(names)
    return '  '.join(words + ([f'({left} more in {file})'] if left else []))


class History:
    """Rows of metrics, saved in checkpoints so that a continued run neither loses nor repeats one."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._started = time.monotonic()

    def start(self) -> None:
        """Start the time of an epoch."""
        self._started = time.monotonic()

    def add(self, epoch: int, step: int, figures: Row, first: str = '', to_come: int = 0) -> str:
        """Add the row of an epoch and return it as a line of text.

        Args:
            epoch: Its number.
            step: Optimizer steps so far.
            figures: Its metrics.
            first: Name of the metric that is always shown.
            to_come: Number of remaining epochs, if known.
        """
        seconds = time.monotonic() - self._started
        self.start()
        self.rows.append({'epoch': epoch, 'step': step, 'seconds': round(seconds, 3), **figures})
        latest = [row['seconds'] for row in self.rows[-_LATEST:]]
        left = f', about {duration(to_come * sum(latest) / len(latest))} left' if to_come > 0 else ''
        return f'epoch {epoch}  step {step}  {shown(figures, first)}  ({duration(seconds)}{left})'

    def write(self, run_dir: Path) -> None:
        """Write all rows to the run folder."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline='')
        table = csv.DictWriter(text, names)
        table.writeheader()
        table.writerows(self.rows)
        with whole_file(run_dir / FILE) as file:
            file.write(text.getvalue().encode())


def read_history(run_dir: Path) -> list[Row]:
    """Read the rows of a run; empty cells are left out.

    Raises:
        ValueError: The file is damaged; the message names the row.
    """
    path = run_dir / FILE
    if not path.is_file():
        return []
    try:
        with path.open(newline='') as file:
            table = csv.DictReader(file, strict=True)
            return [_row(row, f'{path}, row {number}') for number, row in enumerate(table, 1)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f'{path} is damaged: {error}') from error


def _row(texts: dict[str | Any, Any], place: str) -> Row:
    try:
        return {name: float(text) for name, text in texts.items() if text}
    except (ValueError, TypeError) as error:
        raise ValueError(f'{place} is damaged: {list(texts.values())} are not numbers, for {list(texts)}') from error
