"""Tables of the rows, in Markdown; ``python -m benchmarks.page`` puts those of the CSVs into the documentation."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import measures
from benchmarks.contenders import BFLOAT16, WAYS
from benchmarks.limits import AVX2_ALONE, FACTORS
from benchmarks.peers import PEERS
from benchmarks.results import RESULTS, Row, read

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / 'docs' / 'performance.png'
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
    'limits': ('Limits of shapes halved and doubled', 'python -m benchmarks --parts limits'),
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


Columns = tuple[tuple[str, str, Cell], ...]
TIME: Columns = (
    ('step, ms', measures.STEP, milliseconds),
    ('speed', measures.STEP, speed),
    ('inference, ms', measures.INFERENCE, milliseconds),
    ('speed', measures.INFERENCE, speed),
    ('first step, s', measures.FIRST, seconds),
)
MEMORY: Columns = (
    ('kept, MiB', measures.KEPT, mebibytes),
    ('share', measures.KEPT, share),
    ('peak, MiB', measures.PEAK, mebibytes),
    ('share', measures.PEAK, share),
    ('resident, MiB', measures.RESIDENT, mebibytes),
)
COST: Columns = (
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
    elif part == 'limits':
        blocks += [_limits(rows)]
    elif part == 'growth':
        blocks += [_growth(rows, title, measure, cell) for title, measure, cell in (TIME[0], TIME[2], MEMORY[0])]
    else:
        cases = unique(row.case for row in rows)
        blocks += [_case(case, [row for row in rows if row.case == case]) for case in cases]
    if part in ('networks', 'norms', 'small', 'bfloat16', 'compiled', 'savings', 'pages'):
        blocks += [_means(rows)]
    return '\n\n'.join(blocks) + '\n'


def _setting(row: Row) -> str:
    machine = row.cpu if row.device == 'CPU' else f'{row.device}, {row.cpu}'
    threads = f'{row.threads} thread{"s" * (row.threads > 1)}'
    return f'{machine}, {threads}, Python {row.python}, torch {row.torch}, mdnc {row.mdnc}, {row.date}.'


def _case(case: str, rows: Sequence[Row]) -> str:
    rounds = max(row.n for row in rows)
    found = (_columns(rows, columns) for columns in (TIME, MEMORY, COST))  # one table would not fit its page
    return '\n\n'.join([f'**`{case}`**, {rounds} rounds', *(table for table in found if table)])


def _columns(rows: Sequence[Row], columns: Columns) -> str:
    found = {(row.contender, row.measure): row for row in rows}
    columns = tuple(column for column in columns if any(row.measure == column[1] for row in rows))
    names = unique(row.contender for row in rows)
    lines = [[name, *(cell(found[name, measure]) for _, measure, cell in columns)] for name in names]
    return _table(['', *(title for title, _, _ in columns)], lines) if columns else ''


def _means(rows: Sequence[Row]) -> str:
    cases = unique(row.case for row in rows)
    lines = []
    for name in ordered(rows):
        line = [name]
        for measure in (measures.STEP, measures.INFERENCE):
            everywhere = len(_of(rows, name, measure)) == len(cases)
            line.append(f'{_mean_speed(rows, name, measure):.2f}×' if everywhere else '')
        lines.append(line)
    return f'**Geometric mean of the {len(cases)}**\n\n' + _table(['', 'step, speed', 'inference, speed'], lines)


def _growth(rows: Sequence[Row], title: str, measure: str, cell: Cell) -> str:
    found = {(row.case, row.contender): row for row in rows if row.measure == measure}
    names = ordered(rows)
    lines = [[f'`{case}`', *(cell(found[case, name]) for name in names)] for case in unique(row.case for row in rows)]
    return _table([title, *names], lines)


def _start(rows: Sequence[Row]) -> str:
    lines = [[f'`{row.case}`', row.contender, row.measure, seconds(row), f'{row.ratio:.2f}'] for row in rows]
    return _table(['', '', '', 's', 'relative'], lines)


def _listed(rows: Sequence[Row]) -> str:
    lines = [[f'`{row.case}`', row.contender, row.measure, milliseconds(row), speed(row)] for row in rows]
    return _table(['', '', '', 'ms', 'speed'], lines)


def _limits(rows: Sequence[Row]) -> str:
    """Processor time relative to that with the limits as they are, by network and limit."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        contender, _, change = row.contender.partition(', ')
        if change:
            limit, word = change.split()
            narrow = AVX2_ALONE if row.case.endswith(AVX2_ALONE) else ''
            line = found.setdefault((row.case.removesuffix(AVX2_ALONE), f'{contender}: {limit}'), {})
            line[f'{word}{narrow}'] = share(row)
    head = [f'{word}{narrow}' for narrow in ('', AVX2_ALONE) for word in FACTORS]
    lines = [[f'`{case}`', name, *(own.get(each, '') for each in head)] for (case, name), own in found.items()]
    return _table(['processor time of a step, relative', '', *head], lines)


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


def measurements(folder: Path = RESULTS) -> str:
    """All parts that the folder holds, each with the command that gives it."""
    blocks = []
    for part, (title, command) in TITLES.items():
        files = [path for path in (folder / f'{part}-{device}.csv' for device in ('cpu', 'cuda')) if path.exists()]
        if files:
            blocks += [f'## {title}', f'```sh\n{command}\n```', *(tables(read(path)).rstrip() for path in files)]
    return '\n\n'.join(blocks)


LEVELS = {
    'fast': "`memory='fast'`",
    'lean (default)': "`memory='lean'`, the default",
    'leaner': "`memory='leaner'`",
    'least': "`memory='least'`",
    'optimized': '`mdnc.optimize(net)`',
}


def levels(folder: Path = RESULTS, device: str = 'cpu') -> str:
    """What each memory level, and the optimized default, keeps and how fast it is, over the networks of a device."""
    rows = read(folder / f'networks-{device}.csv')
    cases = unique(row.case for row in rows)
    lines = [
        [
            words,
            spanned([row.ratio for row in _of(rows, name, measures.KEPT)]),
            spanned([row.ratio for row in _of(rows, name, measures.PEAK)]),
            f'{_mean_speed(rows, name, measures.STEP):.2f}×',
            f'{_mean_speed(rows, name, measures.INFERENCE):.2f}×',
        ]
        for name, words in LEVELS.items()
    ]
    head = ['', 'kept for backward', 'peak of a step', 'training step', 'inference']
    command = f'python -m benchmarks --parts networks{" --device cuda" * (device == "cuda")}'
    return '\n\n'.join(
        [
            _table(head, [["torch's own layers", '1', '1', '1×', '1×'], *lines]),
            f"Relative to torch's own layers, `{command}`: bytes of {len(cases)} networks, speed as their geometric "
            f'mean. {_setting(rows[0])}',
        ]
    )


OTHERS = {
    'norms': ('batch and group norm', 'lean (default)', 'optimized'),
    'small': ('small networks, as the recipes have them', 'lean (default)', 'optimized'),
    'bfloat16': ('bfloat16 under autocast, beside float32', f'lean{BFLOAT16}', f'optimized{BFLOAT16}'),
}


def others(folder: Path = RESULTS) -> str:
    """Other norms, sizes and types: what is kept and how fast the default and the optimized network are."""
    lines, setting = [], ''
    for part, (words, *names) in OTHERS.items():
        rows = read(folder / f'{part}-cpu.csv')
        cases, setting = unique(row.case for row in rows), _setting(rows[0])
        kept = spanned([row.ratio for name in names for row in _of(rows, name, measures.KEPT)])
        speeds = [
            f'{_mean_speed(rows, name, measure):.2f}×'
            for measure in (measures.STEP, measures.INFERENCE)
            for name in names
        ]
        lines.append([f'{words} (`--parts {part}`, {len(cases)} networks)', kept, *speeds])
    head = ['', 'kept for backward', 'step, default', 'optimized', 'inference, default', 'optimized']
    said = f"Relative to torch's own layers in float32, `python -m benchmarks --parts {' '.join(OTHERS)}`. {setting}"
    return '\n\n'.join([_table(head, lines), said])


def headlines(folder: Path = RESULTS) -> str:
    """Five figures that say most, each with the command that gives it."""
    networks, compiled = read(folder / 'networks-cpu.csv'), read(folder / 'compiled-cpu.csv')
    step, inference = (
        [f'{_mean_speed(networks, name, measure):.2f}' for name in ('lean (default)', 'optimized')]
        for measure in (measures.STEP, measures.INFERENCE)
    )
    kept, least, peak = (
        spanned([row.ratio for row in _of(networks, name, measure)])
        for name, measure in (
            ('lean (default)', measures.KEPT),
            ('least', measures.KEPT),
            ('lean (default)', measures.PEAK),
        )
    )
    first, waits = (
        spanned([row.median for row in _of(rows, name, measures.FIRST)], '.0f')
        for rows, name in ((networks, 'optimized'), (compiled, 'plain, compiled'))
    )
    lines = [
        f"- **Memory kept for backward**: {kept} of what torch's layers keep by default, {least} with "
        "`memory='least'`.",
        f'- **Memory at the peak of a step**: {peak} by default.',
        f'- **Training step**: {step[0]} times as fast by default, {step[1]} times after `mdnc.optimize(net)`.',
        f'- **Inference**: {inference[0]} and {inference[1]} times as fast.',
        f'- **First step, with all that is compiled for it**: {first} s after `mdnc.optimize`, {waits} s with '
        f'`torch.compile` of the same layers.',
    ]
    command = '`python -m benchmarks --parts networks compiled`'
    return '\n'.join([*lines, '', f'{_setting(networks[0])} Made by {command}.'])


def spanned(values: Sequence[float], form: str = '.2f') -> str:
    """The least and the largest of some values."""
    texts = unique(f'{value:{form}}' for value in (min(values), max(values)))
    return ' to '.join(texts)


def _of(rows: Iterable[Row], name: str, measure: str) -> list[Row]:
    return [row for row in rows if (row.contender, row.measure) == (name, measure)]


def _mean_speed(rows: Sequence[Row], name: str, measure: str) -> float:
    ratios = [row.ratio for row in _of(rows, name, measure)]
    return 1 / math.prod(ratios) ** (1 / len(ratios))


BLOCKS: Mapping[str, Callable[[], str]] = {
    'headlines': headlines,
    'levels': levels,
    'other networks': others,
    'levels on CUDA': lambda: levels(device='cuda'),
    'measurements': measurements,
}
PAGES = [ROOT / name for name in ('README.md', 'docs/choosing.md', 'docs/performance.md', 'docs/measurements.md')]


def filled(page: str) -> str:
    """The page with the figures of the CSVs in their places, ``<!-- NAME -->`` to ``<!-- end of NAME -->``."""
    for name, make in BLOCKS.items():
        begin, end = f'<!-- {name} -->', f'<!-- end of {name} -->'
        if begin in page:
            before, rest = page.split(begin)
            page = f'{before}{begin}\n\n{make()}\n\n{end}{rest.split(end)[1]}'
    return page


if __name__ == '__main__':
    from benchmarks.chart import draw

    for path in PAGES:
        path.write_text(filled(path.read_text(encoding='utf-8')), encoding='utf-8')
    draw(read(RESULTS / 'networks-cpu.csv'), PICTURE)
