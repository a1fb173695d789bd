"""The course of a run: what a line shows of it, and what a damaged file is called."""

from mdnc.training.history import History, shown


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
