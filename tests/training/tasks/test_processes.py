"""Two processes know and count what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.training.tasks import regressing

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


def run(folder, devices):
    folder.mkdir()
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{ROOT}:{os.environ.get("PYTHONPATH", "")}'}
    command = [sys.executable, '-W', 'ignore', '-m', regressing.__name__, str(folder), str(devices)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(np.load(folder / 'end.npz'))


def test_two_processes_know_and_count_what_one_does(tmp_path):
    one, two = run(tmp_path / 'one', 1), run(tmp_path / 'two', 2)
    assert [path.name for path in (tmp_path / 'two').glob('asked-*')] == ['asked-0'], 'one of them reads'
    facts = [json.loads((tmp_path / 'two' / f'facts-{rank}.json').read_text()) for rank in (0, 1)]
    assert facts[0] == facts[1] == json.loads((tmp_path / 'one' / 'facts-0.json').read_text())
    assert one['seen'] == two['seen'] == len(one['truth']) == len(two['truth'])
    order = [np.argsort(end['truth'][:, 1]) for end in (one, two)]
    for name in ('truth', 'predicted'):
        np.testing.assert_allclose(one[name][order[0]], two[name][order[1]], rtol=1e-3, atol=1e-3)
    for name in ('numbers', 'names', 'worst'):
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    assert list(one['numbers']) == list(range(len(one['truth'])))
    np.testing.assert_allclose(one['losses'], two['losses'], rtol=1e-3)
    np.testing.assert_allclose(one['interval'], two['interval'], rtol=1e-3)
    figures = [name for name in one if name.startswith('test/')]
    assert 'test/rmse_spread' in figures
    for name in figures:
        assert two[name] == pytest.approx(one[name], rel=1e-3)
