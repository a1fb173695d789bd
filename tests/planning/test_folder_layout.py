"""Targets that folders show where none are named."""

import numpy as np
import pytest
from PIL import Image

from mdnc.planning import plan
from mdnc.planning.folder_layout import seen_targets

GIB = 2**30


def _picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(abs(hash(path.name)) % 1000).integers(0, 99, (12, 10), np.uint8)
    Image.fromarray(np.where(pixels > 50, value, 0).astype(np.uint8) if value else pixels).save(path)


def test_folders_of_one_level_are_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ('cat', 'dog'):
        for number in range(6):
            _picture(tmp_path / f'img/{kind}/{number}.png')
    made = plan('img', GIB)
    assert made.words['model.class_path'] == 'Classification' and made.words['data.targets'] == 'folder'
    assert made.fingerprint.target.classes == ['cat', 'dog'] and not made.fingerprint.groups
    assert '--task Reconstruction' in made.to_yaml()
    assert plan('img', GIB, {'model.class_path': 'Reconstruction'}).words['model.class_path'] == 'Reconstruction'


def test_masks_with_a_word_more_are_targets_and_their_numbers_stand_for_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        _picture(tmp_path / f'img/a{number}.png')
        _picture(tmp_path / f'img/a{number}_mask.png', 255)
    made = plan('img', GIB)
    assert made.words['model.class_path'] == 'Segmentation' and made.words['data.targets'] == 'img/*_mask.png'
    assert made.words['data.values'] == [0, 255] and made.words['model.network.arguments.out_planes'] == 2


@pytest.mark.parametrize('names', [('a.png', 'b.png'), ('x/a.png', 'b/a.png'), ('a.png', 'b_mask.png')])
def test_nothing_is_guessed_where_nothing_is_shown(tmp_path, names):
    for name in names:
        _picture(tmp_path / name)
    assert seen_targets(tmp_path) is None


def test_rows_of_a_table_are_signals_of_one_channel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f'{number},{number * 2},{number % 3},{"a" if number % 2 else "b"}' for number in range(40)]
    (tmp_path / 'table.csv').write_text('\n'.join(['x,y,z,kind', *rows]))
    made = plan('table.csv', GIB, {'data.targets': 'table.csv::kind'})
    assert made.words['data.order'] == 1 and made.fingerprint.size == (3,)
