"""Tables of the rows, in Markdown; ``python -m benchmarks.page`` puts those of the CSVs into the documentation."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks import measures
from benchmarks.contenders import WAYS
from benchmarks.peers import PEERS
from benchmarks.results import RESULTS, Row, read

PAGE = Path(__file__).parents[1] / 'docs' / 'performance.md'
BEGIN, END = '<!-- figures of benchmarks/results -->', '<!-- end of the figures -->'
PICTURE = '![Memory kept for backward and speed of a training step, by contender](performance.png)'
TITLES = {
    'networks': ('The same weights, run in different ways', 'python -m benchmarks --parts networks'),
    'norms': ('Other norms', 'python -m benchmarks --parts norms'),
    'small': ('Small networks', 'python -m benchmarks --parts small'),
    'bfloat16': ('Under autocast', 'python -m benchmarks --parts bfloat16'),
    'compiled': ('Through `torch.compile`', 'python -m benchmarks --parts compiled'),
    'savings': ('What each saving brings, the network optimized', 'python -m benchmarks --parts savings'),
    'shortcuts': ('Shortcuts before or after their up-sampling', 'python -m benchmarks --parts shortcuts'),
    'pages': ('The same, all with pages kept', 'python -m benchmarks --parts pages'),
    'start': ('From the start to the first step', 'python -m benchmarks --parts start'),
    'floor': ('Where the time of a step goes', 'python -m benchmarks --parts floor'),
    'kernels': ('Norm and activation alone', 'python -m benchmarks --parts kernels'),
    'growth': ('How cost grows', 'python -m benchmarks --parts growth'),
    'peers': ('Networks of other packages, as many multiply-adds', 'make bench-peers'),
}
Cell = Callable[[Row], str]


def milliseconds(row: Row) -> str:
    """The median in milliseconds."""
    return f'{row.median * 1e3:.4g}'


def mebibytes(row: Row) -> str:
    """The median in MiB."""
    return f'{row.median / 2**20:.4g}'


def seconds(row: Row) -> str:
    """Median and spread in seconds."""
    own = f'{row.median:.2f}'
    return own if row.n == 1 else f'{own} ({row.p20:.2f}–{row.p80:.2f})'


def speed(row: Row) -> str:
    """How many times as fast as the baseline, with its spread."""
    own = f'{1 / row.ratio:.2f}'
    return f'{own}×' if row.n == 1 else f'{own}× ({1 / row.ratio_p80:.2f}–{1 / row.ratio_p20:.2f})'


def share(row: Row) -> str:
    """How much of the baseline's."""
    return f'{row.ratio:.3f}'


def count(row: Row) -> str:
    """A plain figure."""
    return f'{row.median:.4g}'


COLUMNS: tuple[tuple[str, str, Cell], ...] = (
    ('step, ms', measures.STEP, milliseconds),
    ('speed', measures.STEP, speed),
    ('inference, ms', measures.INFERENCE, milliseconds),
    ('speed', measures.INFERENCE, speed),
    ('kept, MiB', measures.KEPT, mebibytes),
    ('share', measures.KEPT, share),
    ('peak, MiB', measures.PEAK, mebibytes),
    ('share', measures.PEAK, share),
    ('resident, MiB', measures.RESIDENT, mebibytes),
    ('first step, s', measures.FIRST, seconds),
    ('MACs', measures.MACS, count),
    ('elements/MAC', measures.ELEMENTS_PER_MAC, count),
)


def tables(rows: Sequence[Row]) -> str:
    """The tables of a part."""
    part = rows[0].part
    blocks = [_setting(rows[0])]
    if part == 'start':
        blocks += [_start(rows)]
    elif part in ('kernels', 'floor'):
        blocks += [_listed(rows)]
    elif part == 'growth':
        blocks += [_growth(rows, title, measure, cell) for title, measure, cell in (COLUMNS[0], COLUMNS[2], COLUMNS[4])]
    else:
        cases = unique(row.case for row in rows)
        blocks += [_case(case, [row for row in rows if row.case == case]) for case in cases]
    if part in ('networks', 'norms', 'small', 'bfloat16', 'compiled', 'savings', 'pages'):
        blocks += [_means(rows)]
    return '\n\n'.join(blocks) + '\n'


def _setting(row: Row) -> str:
    machine = row.cpu if row.device == 'CPU' else f'{row.device}, {row.cpu}'
    return f'{machine}, {row.threads} threads, Python {row.python}, torch {row.torch}, mdnc {row.mdnc}, {row.date}.'


def _case(case: str, rows: Sequence[Row]) -> str:
    found = {(row.contender, row.measure): row for row in rows}
    columns = [column for column in COLUMNS if any(row.measure == column[1] for row in rows)]
    lines = [
        [name, *(cell(found[name, measure]) for _, measure, cell in columns)]
        for name in unique(row.contender for row in rows)
    ]
    rounds = max(row.n for row in rows)
    return f'**{case}**, {rounds} rounds\n\n' + _table(['', *(title for title, _, _ in columns)], lines)


def _means(rows: Sequence[Row]) -> str:
    cases = unique(row.case for row in rows)
    lines = []
    for name in ordered(rows):
        line = [name]
        for measure in (measures.STEP, measures.INFERENCE):
            own = [row.ratio for row in rows if (row.contender, row.measure) == (name, measure)]
            line.append(f'{1 / math.prod(own) ** (1 / len(own)):.2f}×' if len(own) == len(cases) else '')
        lines.append(line)
    return f'**Geometric mean of the {len(cases)}**\n\n' + _table(['', 'step, speed', 'inference, speed'], lines)


def _growth(rows: Sequence[Row], title: str, measure: str, cell: Cell) -> str:
    found = {(row.case, row.contender): row for row in rows if row.measure == measure}
    names = ordered(rows)
    lines = [[case, *(cell(found[case, name]) for name in names)] for case in unique(row.case for row in rows)]
    return _table([title, *names], lines)


def _start(rows: Sequence[Row]) -> str:
    lines = [[f'{row.case}: {row.contender}', row.measure, seconds(row), f'{row.ratio:.2f}'] for row in rows]
    return _table(['', '', 's', 'relative'], lines)


def _listed(rows: Sequence[Row]) -> str:
    lines = [[f'{row.case}: {row.contender}', row.measure, milliseconds(row), speed(row)] for row in rows]
    return _table(['', '', 'ms', 'speed'], lines)


def ordered(rows: Iterable[Row]) -> list[str]:
    """The contenders of the rows, in the order of the tables that define them."""
    found = {row.contender for row in rows}
    return [name for name in (*WAYS, *PEERS) if name in found]


def unique(names: Iterable[str]) -> list[str]:
    """The names, each once, in their order."""
    return list(dict.fromkeys(names))


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ['---', *('--:' for _ in head[1:])]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in (head, rule, *lines))


def figures(folder: Path = RESULTS) -> str:
    """All parts that the folder holds, each with the command that gives it."""
    blocks = []
    for part, (title, command) in TITLES.items():
        files = [path for path in (folder / f'{part}-{device}.csv' for device in ('cpu', 'cuda')) if path.exists()]
        if files:
            blocks += [f'### {title}', f'```sh\n{command}\n```', *([PICTURE] if part == 'networks' else [])]
            blocks += [tables(read(path)).rstrip() for path in files]
    return '\n\n'.join(blocks)


def filled(page: str) -> str:
    """The page with the figures of the CSVs in their place."""
    before, rest = page.split(BEGIN)
    return f'{before}{BEGIN}\n\n{figures()}\n\n{END}{rest.split(END)[1]}'


if __name__ == '__main__':
    from benchmarks.chart import draw

    PAGE.write_text(filled(PAGE.read_text(encoding='utf-8')), encoding='utf-8')
    draw(read(RESULTS / 'networks-cpu.csv'), PAGE.parent / 'performance.png')
