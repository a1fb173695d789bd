"""Numbers as text: aligned tables, bytes, counts and times."""

from collections.abc import Iterable, Sequence

PREFIXES = ('', 'k', 'M', 'G', 'T', 'P')
UNITS = ('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')


def bytes_text(count: int) -> str:
    """A number of bytes with its unit: ``1536`` → ``1.50 KiB``."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f'{value:.2f} {UNITS[unit]}' if unit else f'{count} B'


def count_text(count: float) -> str:
    """A number with the prefix of a thousand, a million, …: ``1536`` → ``1.54 k``."""
    value, prefix = float(count), 0
    while abs(value) >= 1000 and prefix < len(PREFIXES) - 1:
        value, prefix = value / 1000, prefix + 1
    return f'{value:.2f} {PREFIXES[prefix]}' if prefix else f'{count:g}'


def seconds_text(seconds: float) -> str:
    """A time with a suitable unit: ``0.0015`` → ``1.5 ms``."""
    for unit, length in (('s', 1.0), ('ms', 1e-3), ('µs', 1e-6)):
        if seconds >= length:
            return f'{seconds / length:.3g} {unit}'
    return f'{seconds / 1e-9:.3g} ns'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], foot: int = 0) -> str:
    """Arrange rows in columns, the first aligned to the left and the others to the right.

    Args:
        head: Titles of the columns.
        rows: Text of each cell.
        foot: Number of last rows separated by a line.
    """
    cells = [tuple(head), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(row, widths) for row in cells]
    rule = '─' * (sum(widths) + 2 * (len(widths) - 1))
    body = lines[1:] if not foot else [*lines[1:-foot], rule, *lines[-foot:]]
    return '\n'.join([lines[0], rule, *body])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return '  '.join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]).rstrip()
