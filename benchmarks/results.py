"""Rows of figures: from values to a CSV and back."""

import csv
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

import mdnc
from benchmarks.contenders import BASELINES

RESULTS = Path(__file__).parent / 'results'


class Spread(NamedTuple):
    """The middle of some values, and what a fifth of them lies below and above."""

    median: float
    p20: float
    p80: float


def spread(values: Sequence[float]) -> Spread:
    """Median and 20/80 % quantiles."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    cuts = statistics.quantiles(values, n=5, method='inclusive')
    return Spread(statistics.median(values), cuts[0], cuts[-1])


@dataclass(frozen=True)
class Row:
    """A figure of a contender, and what it was measured with.

    Args:
        part: Part of the benchmark.
        case: Network and shape of its input, or what else was run.
        contender: How it was run.
        measure: What was measured, in seconds, bytes, or a count.
        median: Median over the rounds.
        p20: 20 % quantile over the rounds.
        p80: 80 % quantile over the rounds.
        ratio: Median of the values divided, round by round, by those of the baseline.
        ratio_p20: Its 20 % quantile.
        ratio_p80: Its 80 % quantile.
        n: Number of rounds.
        baseline: What the ratio refers to.
        allocator: How the C library handles large buffers, ``'default'`` or ``'pages kept'``.
        threads: Threads that torch computed with.
        device: Name of the device.
    """

    part: str
    case: str
    contender: str
    measure: str
    median: float
    p20: float
    p80: float
    ratio: float
    ratio_p20: float
    ratio_p80: float
    n: int
    baseline: str
    allocator: str
    threads: int
    device: str
    cpu: str = field(default_factory=lambda: cpu_model())
    date: str = field(default_factory=lambda: date.today().isoformat())
    python: str = platform.python_version()
    torch: str = torch.__version__
    mdnc: str = mdnc.__version__


@dataclass(frozen=True)
class Setting:
    """What the rows of a part share; see `Row`."""

    part: str
    device: str = 'cpu'
    threads: int = 1
    allocator: str = 'default'

    @property
    def device_name(self) -> str:
        """The device as its maker calls it."""
        return torch.cuda.get_device_name() if self.device == 'cuda' else 'CPU'


def rows(
    setting: Setting,
    case: str,
    measure: str,
    values: Mapping[str, Sequence[float]],
    baselines: Sequence[str] = BASELINES,
) -> list[Row]:
    """A row for each contender, from its values round by round; ratios are to the best of the baselines."""
    middle = {name: statistics.median(values[name]) for name in baselines if name in values}
    baseline = min(middle, key=lambda name: middle[name])
    return [
        Row(
            setting.part,
            case,
            name,
            measure,
            *spread(own),
            *spread([value / base for value, base in zip(own, values[baseline], strict=True)]),
            len(own),
            baseline,
            setting.allocator,
            setting.threads,
            setting.device_name,
        )
        for name, own in values.items()
    ]


@cache
def cpu_model() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), platform.machine())


def write(path: Path, table: Iterable[Row]) -> None:
    """Write rows as a CSV."""
    names = [each.name for each in fields(Row)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(names)
        writer.writerows([_text(getattr(row, name)) for name in names] for row in table)


def _text(value: object) -> object:
    return f'{value:.6g}' if isinstance(value, float) else value


def read(path: Path) -> list[Row]:
    """Read the rows of a CSV."""
    kinds = {each.name: each.type for each in fields(Row)}
    with path.open(newline='', encoding='utf-8') as file:
        return [Row(**{name: kinds[name](text) for name, text in line.items()}) for line in csv.DictReader(file)]  # type: ignore[operator]
