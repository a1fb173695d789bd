"""The pictures hold what they promise: read from the figure, not from its pixels."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mdnc.training.pictures import Example, Style, agreement_panel, confusion_panel, curves_panel, maps_panel, save_page

RNG = np.random.default_rng(0)


def drawn(panel):
    figure = Figure(figsize=(panel.width, panel.height))
    panel.draw(figure)
    return figure


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_curves_show_each_part_over_the_epochs_counted_from_one():
    history = [{'epoch': e, 'train/loss': 1 / (e + 1), 'val/loss': 2 / (e + 1), 'val/dice': 0.5} for e in range(3)]
    panel, *none = curves_panel(history, {'loss': 'the loss', 'dice': 'Dice', 'rmse': 'never logged'})
    assert none == []
    loss, dice = drawn(panel).axes
    assert [line.get_label() for line in loss.lines] == ['training', 'validation']
    assert list(loss.lines[0].get_xdata()) == [1, 2, 3]
    assert list(loss.lines[1].get_ydata()) == [2, 1, 2 / 3]
    assert loss.get_title() == 'the loss'
    assert dice.yaxis.get_major_formatter()(0.5).startswith('50')
    assert curves_panel([], {'loss': 'loss'}) == []


@pytest.mark.parametrize(('last', 'scale'), [(0.9, 'linear'), (1e-3, 'log'), (-1.0, 'linear')])
def test_a_loss_that_falls_far_is_drawn_on_a_log_scale(last, scale):
    history = [{'epoch': 0, 'train/loss': 1.0}, {'epoch': 1, 'train/loss': last}]
    assert drawn(curves_panel(history, {'loss': 'loss'})[0]).axes[0].get_yscale() == scale


def test_curves_leave_out_epochs_without_a_value_or_with_nan():
    history = [{'epoch': 0, 'train/loss': float('nan')}, {'epoch': 1}, {'epoch': 2, 'train/loss': 1.0}]
    assert drawn(curves_panel(history, {'loss': 'loss'})[0]).axes[0].lines[0].get_xdata()[-1] == 3


def test_confusion_rows_are_true_classes():
    axes = drawn(confusion_panel(np.array([[5, 2], [0, 3]]), ['cat', 'dog'])).axes[0]
    assert texts(axes) == ['5', '2', '3']
    assert [text.get_position() for text in axes.texts] == [(0, 0), (1, 0), (1, 1)]
    assert axes.get_ylabel() == 'true class'
    assert axes.get_title() == 'confusion matrix, test: 8 of 10 right'
    assert [label.get_text() for label in axes.get_xticklabels()] == ['cat', 'dog']


def test_confusion_of_many_classes_has_no_numbers_but_stays_readable():
    axes = drawn(confusion_panel(np.eye(100, dtype=int), [str(number) for number in range(100)])).axes[0]
    assert texts(axes) == []
    assert len(axes.get_xticklabels()) <= 40


def test_agreement_says_how_far_off():
    truth = np.array([[0.0], [2.0], [4.0]])
    axes = drawn(agreement_panel(truth, truth + 1, ['age in years'])).axes[0]
    assert axes.get_title() == 'RMSE = 1, R² = 0.625'
    assert axes.get_xlabel() == 'true age in years'
    # Values that are all the same have no R².
    assert drawn(agreement_panel(truth * 0, truth, ['x'])).axes[0].get_title() == 'RMSE = 2.58'


def example(order, classes=None, target=True, channels=1):
    size = (6, 7, 8)[:order]
    make = (lambda: RNG.integers(0, classes, size)) if classes else (lambda: RNG.normal(size=size))
    return Example('run_3.h5[17]', RNG.normal(size=(channels, *size)), make() if target else None, make())


@pytest.mark.parametrize('order', [1, 2, 3])
@pytest.mark.parametrize('style', [Style(), Style(alike=True), Style(classes=['a', 'b', 'c'])])
def test_maps_of_every_order_can_be_drawn(order, style, tmp_path):
    count = len(style.classes or ()) or None
    for channels in (1, 3):
        panel = maps_panel([example(order, count, channels=channels)] * 2, style)
        with Image.open(save_page(tmp_path / 'p.png', 'title', [panel])) as image:
            assert min(image.size) > 200


def test_volumes_show_the_middle_slice_across_each_axis():
    sample = example(3)
    figure = drawn(maps_panel([sample], Style()))
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images and axes.get_xticks().size == 0]
    np.testing.assert_array_equal(shown[1], sample.target[3])
    np.testing.assert_array_equal(shown[5], sample.target[:, 3])
    np.testing.assert_array_equal(shown[9], sample.target[..., 4])
    assert 'slice 3 of axis 1' in figure.axes[0].get_ylabel()


def test_targets_and_outputs_share_a_scale_and_holes_stay_white():
    sample = example(2)
    sample.target[0, 0] = np.nan
    figure = drawn(maps_panel([sample], Style()))
    target, output = (axes.images[0] for axes in figure.axes[1:3])
    assert target.get_clim() == output.get_clim() == (np.nanmin(sample.target), np.nanmax(sample.target))


def test_it_is_said_when_only_one_channel_is_shown():
    figure = drawn(maps_panel([example(2, channels=3)], Style(alike=True, channels=3)))
    assert [axes.get_title() for axes in figure.axes[:2]] == ['input (channel 1 of 3)', 'target (channel 1 of 3)']
    assert figure.axes[0].images[0].get_array().shape == (6, 7)
    colours = drawn(maps_panel([example(2, channels=3)], Style(channels=2))).axes[0]
    assert colours.get_title() == 'input'
    assert colours.images[0].get_array().shape == (6, 7, 3)


def test_pages_put_what_has_no_room_below(tmp_path):
    panels = [confusion_panel(np.eye(3, dtype=int), list('abc'))] * 2 + [maps_panel([example(2)], Style())]
    with Image.open(save_page(tmp_path / 'wide.png', 'title', panels[:2])) as image:
        assert image.width > image.height
    with Image.open(save_page(tmp_path / 'both.png', 'title', panels)) as image:
        assert image.width / 120 <= 15
