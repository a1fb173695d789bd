"""The pages for three people are followed literally, from an empty folder to predictions."""

import csv
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from tests.test_documents import ROOT, blocks, shows

pytestmark = pytest.mark.slow
PAGES = ('signals', 'images', 'volumes')


def follow(page, folder):
    """Do what a page says, block by block; what a block prints must be what stands below it."""
    places = [str(ROOT / 'src'), os.environ.get('PYTHONPATH', '')]
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(places),
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        'COLUMNS': '150',
    }
    for block, after in pairwise([*blocks(page), None]):
        if block.language not in ('sh', 'python') or block.reason == 'it installs packages':
            continue
        command = ['bash', '-ec', block.code] if block.language == 'sh' else [sys.executable, '-c', block.code]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f'{page.name}, line {block.line}:\n{done.stdout}{done.stderr}'
        if after is not None and after.language == 'text':
            assert shows(after.code, done.stdout), f'{page.name}, line {after.line}: this is printed:\n{done.stdout}'


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
    people = {row['file']: row['person'] for row in csv.DictReader((folder / 'labels.csv').open())}
    tested = [row['path'] for row in csv.DictReader((folder / 'runs/activity/test.csv').open())]
    other = {people[name] for name in people if name not in tested}
    assert 20 <= len(tested) <= 40 and not {people[name] for name in tested} & other
    rows = list(csv.DictReader((folder / 'answers.csv').open()))
    assert [row['path'] for row in rows] == [f'recording_{number}.csv' for number in range(120, 124)]
    assert [row['class'] for row in rows] == ['rest', 'walk', 'run', 'rest']


def images(folder):
    from PIL import Image

    assert figures(folder / 'runs/kinds')['accuracy']['value'] > 0.6
    assert figures(folder / 'runs/cells')['dice_foreground']['value'] > 0.8
    rows = list(csv.DictReader((folder / 'kinds.csv').open()))
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
