"""The pages for signals, images and volumes are followed literally, from an empty folder to an exported network."""

import csv
import json

import pytest

from tests.test_documents import ROOT, shows
from tools.guides import GUIDES, PICTURES, follow

pytestmark = pytest.mark.slow


def rows_of(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module', params=GUIDES)
def followed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    page = ROOT / f'docs/{request.param}.md'
    for code, shown, printed in follow(page, folder):
        assert shows(shown, printed), f'{page.name}: {code}prints\n{printed}'
    return request.param, folder


def figures(run):
    assert (run / 'report.html').stat().st_size > 50_000
    return json.loads((run / 'test.json').read_text())['figures']


def signals(folder):
    assert figures(folder / 'runs/speakers')['accuracy']['value'] > 0.9
    parts = {row['file'].removeprefix('recordings/'): row['part'] for row in rows_of(folder / 'speakers.csv')}
    tested = [row['path'] for row in rows_of(folder / 'runs/speakers/test.csv')]
    assert sorted(tested) == sorted(name for name, part in parts.items() if part == 'test')
    rows = rows_of(folder / 'answers.csv')
    assert [row['path'] for row in rows] == [f'test_{number}.csv' for number in range(366, 370)]
    assert (folder / 'speakers.onnx').exists()


def images(folder):
    from PIL import Image

    assert figures(folder / 'runs/kinds')['accuracy']['value'] > 0.9
    assert figures(folder / 'runs/coins')['dice_foreground']['value'] > 0.9
    rows = rows_of(folder / 'kinds.csv')
    assert [row['path'] for row in rows] == [f'{number}.png' for number in range(1790, 1797)]
    masks = sorted((folder / 'answers').iterdir())
    assert [path.name for path in masks] == [f'{number}.png' for number in range(10)]
    with Image.open(masks[0]) as mask:
        assert mask.size == (64, 75) and set(mask.get_flattened_data()) == {0, 255}


def volumes(folder):
    import nibabel
    import numpy as np

    assert figures(folder / 'runs/tissue')['dice_foreground']['value'] > 0.7
    [path] = (folder / 'answers').rglob('*.nii.gz')
    mask, scan = nibabel.load(path), nibabel.load(folder / 'new/block_5/t1.nii.gz')
    assert mask.shape == scan.shape
    np.testing.assert_array_equal(mask.affine, scan.affine)
    assert set(np.unique(np.asarray(mask.dataobj)).tolist()) == {0, 1, 2}
    assert (folder / 'tissue.onnx').exists()


def test_who_follows_a_page_gets_there(followed):
    name, folder = followed
    {'signals': signals, 'images': images, 'volumes': volumes}[name](folder)
    assert all((folder / written).is_file() for guide, written in PICTURES.values() if guide == name)


def test_pages_show_the_pictures_of_their_runs():
    pages = {guide: (ROOT / f'docs/{guide}.md').read_text(encoding='utf-8') for guide in GUIDES}
    assert all(f'](pictures/{picture}.png)' in pages[guide] for picture, (guide, _) in PICTURES.items())
    sizes = [(ROOT / f'docs/pictures/{picture}.png').stat().st_size for picture in PICTURES]
    assert max(sizes) < 100_000
