"""The pages for three people are followed literally, from an empty folder to predictions."""

import csv
import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest

from tests.test_documents import ROOT, blocks, shows

pytestmark = pytest.mark.slow
PAGES = ('signals', 'images', 'volumes')


# One process does all that a page says: to start a Python for each line would take longer than what it does.
FOLLOWING = """
import contextlib, io, json, shlex, sys
from mdnc.cli import main

namespace = {}
for language, code, shown in json.load(sys.stdin):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        if language == 'python':
            exec(code, namespace)
        for line in code.splitlines() if language == 'sh' else ():
            words = shlex.split(line)
            assert words[0] == 'mdnc', line
            if main(words[1:]):
                sys.exit(f'this fails: {line}')
    print(json.dumps([code, shown, output.getvalue()]), flush=True)
"""


def follow(page, folder):
    """Do what a page says, block by block; what a block prints must be what stands below it."""
    todo = [
        (block.language, block.code, after.code if after is not None and after.language == 'text' else '')
        for block, after in pairwise([*blocks(page), None])
        if block.language in ('sh', 'python') and block.reason != 'it installs packages'
    ]
    environment = {**os.environ, 'PYTHONPATH': f'{ROOT / "src"}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
    command = [sys.executable, '-W', 'ignore', '-c', FOLLOWING]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        input=json.dumps(todo),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in done.stdout.splitlines():
        code, shown, printed = json.loads(line)
        assert shows(shown, printed), f'{page.name}: {code}prints\n{printed}'


def rows_of(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module', params=PAGES)
def followed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    follow(ROOT / f'docs/people/{request.param}.md', folder)
    return request.param, folder


def figures(run):
    assert (run / 'report.html').stat().st_size > 50_000
    return json.loads((run / 'test.json').read_text())['figures']


def signals(folder):
    assert figures(folder / 'runs/activity')['accuracy']['value'] > 0.9
    people = {row['file']: row['person'] for row in rows_of(folder / 'labels.csv')}
    tested = [row['path'] for row in rows_of(folder / 'runs/activity/test.csv')]
    other = {people[name] for name in people if name not in tested}
    assert 20 <= len(tested) <= 40 and not {people[name] for name in tested} & other
    rows = rows_of(folder / 'answers.csv')
    assert [row['path'] for row in rows] == [f'recording_{number}.csv' for number in range(120, 124)]
    assert [row['class'] for row in rows] == ['rest', 'walk', 'run', 'rest']


def images(folder):
    from PIL import Image

    assert figures(folder / 'runs/kinds')['accuracy']['value'] > 0.6
    assert figures(folder / 'runs/cells')['dice_foreground']['value'] > 0.8
    rows = rows_of(folder / 'kinds.csv')
    assert [row['class'] for row in rows] == ['discs', 'squares', 'stripes']
    masks = sorted((folder / 'answers').iterdir())
    assert [path.name for path in masks] == ['60.png', '61.png', '62.png']
    with Image.open(masks[0]) as mask:
        assert mask.size == (64, 48) and set(mask.get_flattened_data()) == {0, 255}


def volumes(folder):
    import nibabel
    import numpy as np

    assert figures(folder / 'runs/lesions')['dice_foreground']['value'] > 0.7
    [path] = (folder / 'answers').rglob('*.nii.gz')
    mask, scan = nibabel.load(path), nibabel.load(folder / 'new/patient_8/t1.nii.gz')
    assert mask.shape == scan.shape
    np.testing.assert_array_equal(mask.affine, scan.affine)
    assert set(np.unique(np.asarray(mask.dataobj)).tolist()) == {0, 1, 2}


def test_who_follows_a_page_gets_there(followed):
    name, folder = followed
    {'signals': signals, 'images': images, 'volumes': volumes}[name](folder)
