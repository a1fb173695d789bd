"""The course of a run: what a line shows of it, and what a damaged file is called."""

import pytest

from mdnc.training.history import History, read_history, shown


def test_a_few_figures_are_shown_whole():
    assert shown({'train/loss': 0.5, 'val/loss': 0.25}) == 'train/loss 0.5  val/loss 0.25'


def test_of_many_quantities_a_line_shows_what_sums_them_up():
    each = {f'{part}/rmse_{number}': 0.5 for part in ('train', 'val') for number in range(48)}
    figures = {**each, 'train/loss': 1, 'train/rmse': 2, 'val/loss': 3, 'val/rmse': 4, 'lr': 5}
    line = shown(figures, 'val/rmse')
    assert line == 'train/loss 1  train/rmse 2  val/loss 3  val/rmse 4  lr 5  (96 more in metrics.csv)'


def test_the_figure_that_a_run_is_judged_by_is_always_shown():
    figures = {f'val/a{number}': number for number in range(50)} | {'val/best': 0.125, 'val/loss': 1}
    line = shown(figures, 'val/best')
    assert 'val/best 0.125' in line and 'val/loss 1' in line
    assert len(line) < 200
    assert 'val/best 0.125' in History().add(0, 1, figures, 'val/best')


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (b'epoch,val/loss\n0,0.5\n1,abc\n', r"row 2 is damaged: \['1', 'abc'\] are not numbers, for"),
        (b'epoch,val/loss\n0,0.5,7\n', 'row 1 is damaged'),
        (b'\xff\xfe\x00epoch', 'metrics.csv is damaged'),
        (b'epoch,val/loss\n0,"0.5\n', 'metrics.csv is damaged'),
    ],
)
def test_a_damaged_file_is_named_with_its_row(tmp_path, text, words):
    (tmp_path / 'metrics.csv').write_bytes(text)
    with pytest.raises(ValueError, match=words):
        read_history(tmp_path)


def test_what_a_row_lacks_is_absent(tmp_path):
    (tmp_path / 'metrics.csv').write_text('epoch,val/loss\n0,\n1,0.5\n')
    assert read_history(tmp_path) == [{'epoch': 0}, {'epoch': 1, 'val/loss': 0.5}]
