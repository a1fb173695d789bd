"""The benchmark runs, compares like with like, and its figures are those of the page. No time is judged."""

import os
import subprocess
import sys

import pytest
import torch

import mdnc
from benchmarks import chart, floor, kernels, limits, measures, page
from benchmarks.cases import CASES, PEER_CASES, TINY
from benchmarks.contenders import BFLOAT16, PLAIN, SAVINGS, WAYS, channels_last, fits
from benchmarks.parts import Race, check_alike, in_turns, limit_rows
from benchmarks.peers import PLAIN_BLOCKS
from benchmarks.results import Setting, read, rows, spread, write
from benchmarks.worker import Failed, Job, Worker
from mdnc.modules.resnet import EncoderNet1d
from mdnc.ops.backend import DEFAULT, TABLE, Backend
from mdnc.ops.convolution import ROUTES
from mdnc.ops.limits import LIMITS

SETTING, LIMIT_SETTING = Setting('networks'), Setting('limits')


@pytest.fixture(scope='module')
def race():
    return Race(SETTING, TINY, ('plain', 'lean (default)', 'plain, channels last'), rounds=2).rows()


def test_race_takes_every_measure_of_those_that_fit(race):
    assert {(row.contender, row.measure) for row in race} == {
        (name, measure)
        for name in ('plain', 'lean (default)')  # there are no channels-last signals
        for measure in (measures.FIRST, *measures.COUNTED, *measures.TIMED)
    }
    assert {row.measure: row.n for row in race} == dict.fromkeys(
        (measures.FIRST, *measures.COUNTED), 1
    ) | dict.fromkeys(measures.TIMED, 2)


def test_race_sees_the_memory_that_is_spared(race):
    kept = {row.contender: row for row in race if row.measure == measures.KEPT}
    assert kept['plain'].ratio == 1
    assert kept['lean (default)'].ratio < 0.5


def test_table_and_csv_hold_the_race(race, tmp_path):
    text = page.tables(race)
    assert TINY in text
    assert '| lean (default) |' in text
    write(tmp_path / 'rows.csv', race)
    back = read(tmp_path / 'rows.csv')
    assert [(row.case, row.contender, row.n, row.date) for row in back] == [
        (row.case, row.contender, row.n, row.date) for row in race
    ]
    assert [row.median for row in back] == pytest.approx([row.median for row in race], rel=1e-5)


def test_picture_is_drawn(race, tmp_path):
    chart.draw(race, tmp_path / 'chart.png')
    assert (tmp_path / 'chart.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('name', [name for name in WAYS if 'compiled' not in name])
def test_ways_give_the_same(name, monkeypatch):
    # Put back what a way exchanges in the process that it has for itself.
    for key in list(TABLE):
        monkeypatch.setitem(TABLE, key, TABLE[key])
    # Not of 8 channels: torch 2.13 writes out of bounds in the weights' gradient of a 1 × 1 convolution with stride 2
    # from 8 channels to 8, channels-last, which 'plain, channels last' then holds.
    case = 'UNet2d(16, [2]*3) 2×3×96×96'
    expected, x = CASES[case].setup('cpu')
    y = expected(x)
    want = torch.autograd.grad(y.square().mean(), list(expected.parameters()))
    net, x = CASES[case].setup('cpu')
    for step in WAYS[name]:
        net, x = step(net, x)
    y_found = net(x)
    if name.endswith(BFLOAT16):
        assert (y_found - y).norm() < 5e-2 * y.norm()
        return
    torch.testing.assert_close(y_found, y, rtol=1e-3, atol=1e-3)
    scale = max(each.norm() for each in want)
    for mine, theirs in zip(torch.autograd.grad(y_found.square().mean(), list(net.parameters())), want, strict=True):
        assert (mine - theirs).norm() < 5e-2 * theirs.norm() + 1e-5 * scale


def test_every_route_of_convolutions_and_part_of_a_backend_has_a_row(monkeypatch):
    before, routes, parts = dict(TABLE), set(ROUTES), {*Backend._fields}
    for name in SAVINGS:
        for key in before:
            monkeypatch.setitem(TABLE, key, before[key])
        for step in WAYS[name]:
            if step not in (PLAIN, channels_last):
                step(EncoderNet1d(4, [1, 1]), torch.zeros(1, 1, 8))
        for key, was in before.items():
            routes &= TABLE[key].tools.routes if key[1] == 'cpu' else routes
            parts -= {part for part in parts if getattr(TABLE[key], part) != getattr(was, part)}
    assert not routes - {'winograd', 'winograd_1d'}  # which go with the convolution of a backend
    assert not parts


@pytest.mark.parametrize('case', PEER_CASES)
def test_plain_blocks_beside_the_peers_compute_as_much_as_the_case(case):
    net, x = CASES[case].setup('cpu')
    other, _ = PLAIN_BLOCKS(net, x)
    macs = [mdnc.analysis.cost(each, tuple(x.shape[1:]), len(x)).macs for each in (net, other)]
    assert macs[1] == pytest.approx(macs[0], rel=0.03)


def test_worker_hands_errors_on():
    with pytest.raises(Failed, match='no such contender'):
        Worker(Job(TINY, 'no such contender'))


def test_worker_starts_with_its_environment():
    before = dict(os.environ)
    worker = Worker(Job(TINY, 'plain', environment={'TORCHINDUCTOR_CACHE_DIR': 'somewhere'}))
    assert worker.ask(measures.KEPT) > 0
    worker.close()
    assert dict(os.environ) == before


def test_ratios_are_taken_round_by_round_to_the_better_plain_layout():
    values = {'plain': [3.0, 5.0], 'plain, channels last': [2.0, 4.0], 'optimized': [1.0, 1.0]}
    found = {row.contender: row for row in rows(SETTING, TINY, measures.STEP, values)}
    assert {row.baseline for row in found.values()} == {'plain, channels last'}
    assert found['optimized'].ratio == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert (found['plain'].ratio_p20, found['plain'].ratio_p80) == pytest.approx((1.30, 1.45))


def test_spread_of_one_value_is_that_value():
    assert spread([3.0]) == (3.0, 3.0, 3.0)
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == (3.5, 2.0, 5.0)


def test_all_take_turns_in_every_round():
    log = []
    values = in_turns({name: lambda name=name: log.append(name) or float(len(log)) for name in 'abc'}, 4)
    assert [sorted(log[start : start + 3]) for start in range(0, 12, 3)] == [['a', 'b', 'c']] * 4
    assert sorted(value for own in values.values() for value in own) == list(range(1, 13))


@pytest.mark.parametrize('loss', [1.1, float('nan')])
def test_different_computations_are_not_compared(loss):
    with pytest.raises(ArithmeticError, match='different things'):
        check_alike({'plain': 1.0, 'optimized': loss}, 1e-3)
    check_alike({'plain': 1.0, 'optimized': 1.0005}, 1e-3)


def test_signals_have_no_channels_last():
    assert fits('plain, channels last', (2, 1, 8, 8))
    assert not fits('plain, channels last', (2, 1, 8))


@pytest.mark.parametrize('path', page.PAGES, ids=lambda path: path.name)
def test_pages_show_the_figures_of_the_csvs(path):
    text = path.read_text(encoding='utf-8')
    assert any(f'<!-- {name} -->' in text for name in page.BLOCKS)
    assert page.filled(text) == text


def test_every_block_of_figures_is_on_a_page():
    texts = ''.join(path.read_text(encoding='utf-8') for path in page.PAGES)
    assert [name for name in page.BLOCKS if f'<!-- {name} -->' not in texts] == []


def test_no_table_is_wider_than_the_column(race):
    widths = {line.count('|') for line in page.tables(race).splitlines() if line.startswith('|')}
    assert max(widths) <= 7  # a name and five figures


def test_kernels_are_timed_for_every_contender_and_listed():
    case = '8 × 512 × 16, channels last'
    jobs = kernels.kernel_jobs(case, SETTING)
    assert [list(each) for each in jobs.values()] == [list(kernels.CONTENDERS)] * 3
    taken = {name: [job()] for name, job in jobs['norm and activation, backward'].items() if name != 'Inductor'}
    assert all(seconds > 0 for (seconds,) in taken.values())
    text = page.tables(rows(Setting('kernels'), case, 'backward', taken, ['torch']))
    assert f'| `{case}` | optimized | backward |' in text


def test_limits_are_halved_and_doubled_where_that_changes_a_step(monkeypatch):
    for key in list(TABLE):
        monkeypatch.setitem(TABLE, key, TABLE[key])
    monkeypatch.setattr(limits, 'STEPS_SECONDS', 0.0)
    monkeypatch.setattr(limits, 'KINDS', {'lean (default)': (DEFAULT, ('few_values', 'im2col_weights'))})
    found = limits.step_seconds(TINY, threads=1, rounds=2)
    assert {'lean (default)', 'lean (default), few_values doubled'} <= found.keys()
    assert 'lean (default), im2col_weights halved' not in found  # a network with so few weights does not meet it
    assert {len(values) for values in found.values()} == {2}
    assert {TABLE[key].tools.limits for key in TABLE} == {LIMITS}
    narrow = {way: seconds for way, seconds in found.items() if not way.endswith('halved')}
    made = [*limit_rows(LIMIT_SETTING, TINY, found), *limit_rows(LIMIT_SETTING, f'{TINY}{limits.AVX2_ALONE}', narrow)]
    assert {row.baseline for row in made} == {'lean (default)'}
    (line,) = [line for line in page.tables(made).splitlines() if 'few_values' in line]
    cells = [cell.strip() for cell in line.split('|')[3:-1]]
    assert [bool(cell) for cell in cells] == ['lean (default), few_values halved' in found, True, False, True]


def test_a_process_with_avx2_alone_compiles_and_computes_so():
    script = 'import torch; print(torch.backends.cpu.get_cpu_capability())'
    with limits.avx2_alone() as narrow:
        words = [narrow['CXX'], '-march=native', '-dM', '-E', '-x', 'c++', os.devnull]
        macros = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        ran = subprocess.run([sys.executable, '-c', script], env=os.environ | narrow, capture_output=True, text=True)
    assert '__AVX2__' in macros
    assert '__AVX512F__' not in macros
    assert ran.stdout.strip() == 'AVX2'


def test_floor_counts_the_arithmetic_of_steps_and_of_inference():
    values = {(name, measure): seconds for name, measure, seconds in floor.floor_seconds(TINY, 1)}
    for whole, convolutions in ((floor.WHOLE, floor.CONVOLUTIONS), (floor.RESULT, floor.FORWARD)):
        ways = {name for name, measure in values if measure == whole}
        assert ways == {'plain', 'lean (default)', 'optimized'}
        assert {name for name, measure in values if measure == convolutions} == {*ways, floor.FLOOR}
        # The arithmetic of so small a network is nothing beside the calls.
        assert 0 < values[floor.FLOOR, convolutions] < values['plain', whole]
    assert values[floor.FLOOR, floor.FORWARD] < values[floor.FLOOR, floor.CONVOLUTIONS]
