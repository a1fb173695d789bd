"""The pictures hold what they promise: read from the figure, not from its pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from mdnc.training.pictures import Example, Style, agreement_panel, confusion_panel, curves_panel, maps_panel, save_page
from mdnc.training.pictures.page import wrapped
from mdnc.training.tasks.examples import keep_examples

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


def ink(path, column):
    """How much a column of a picture is not white."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert('L'))
    return int((pixels[:, column] < 250).sum())


def test_no_title_or_label_is_cut(tmp_path):
    title = 'UNet3d: test mean Dice score 87.31% (background 99.2%, liver 93.1%, tumour 69.6%) of a title that goes on'
    sample = replace(example(3, channels=1), name='patients/' * 9 + 'scan.nii', channel=1)
    panels = [maps_panel([sample], Style(channels=2)), confusion_panel(np.eye(3, dtype=int), list('abc'))]
    for panel in panels:
        path = save_page(tmp_path / 'p.png', title, [panel])
        with Image.open(path) as image:
            assert [ink(path, column) for column in (0, 1, 2, image.width - 2, image.width - 1)] == [0] * 5
    assert ' '.join(wrapped(title, 8.0)) == title
    assert len(wrapped(title, 8.0)) == 2
    assert len(sample.label(Style(channels=2)).splitlines()[0]) == 40
    assert sample.label(Style(channels=2)).endswith('scan.nii\nchannel 2 of 2')


def labels(figure):
    return [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]


def test_slices_go_through_the_rarest_class():
    target = np.zeros((20, 20, 20))
    target[5:15, 5:15, 5:15] = 1
    target[17, 3, 2] = 2
    sample = Example('s', target[None], target, target)
    style = Style(classes=['none', 'big', 'small'])
    found = labels(drawn(maps_panel([sample], style)))
    assert found == [f's\nslice {place} of axis {axis}, through small' for axis, place in ((1, 17), (2, 3), (3, 2))]
    shown = [axes.images[0].get_array() for axes in drawn(maps_panel([sample], style)).axes if axes.images]
    assert [2 in part for part in shown] == [True] * 9
    # Where only the network sees the class, there it is looked for.
    unknown = replace(sample, target=None)
    assert 'slice 17 of axis 1, through small' in labels(drawn(maps_panel([unknown], style)))[0]


def test_thin_volumes_are_cut_where_slices_are_no_strips():
    target = np.zeros((8, 60, 70))
    target[6, 3, 2] = 1
    found = labels(drawn(maps_panel([Example('s', target[None], target, target)], Style(classes=['a', 'b']))))
    assert [text.split('\n')[1] for text in found] == [
        'slice 1 of axis 1',
        'slice 4 of axis 1',
        'slice 6 of axis 1, through b',
    ]
    figure = drawn(maps_panel([Example('s', np.zeros((1, 4, 90)), None, np.zeros((4, 90)))], Style()))
    assert figure.axes[0].get_aspect() == 'auto'
    assert drawn(maps_panel([example(2)], Style())).axes[0].get_aspect() == 1.0


def test_slices_show_what_is_known():
    target = np.full((12, 12, 12), np.nan)
    target[9] = 1.0
    found = labels(drawn(maps_panel([Example('s', target[None], target, np.ones((12, 12, 12)))], Style())))
    assert 'slice 9 of axis 1' in found[0]
    nothing = Example('s', np.zeros((1, 6, 6, 6)), np.full((6, 6, 6), np.nan), np.ones((6, 6, 6)))
    for style in (Style(), Style(classes=['a', 'b'])):
        assert len(labels(drawn(maps_panel([nothing], style)))) == 3


def test_each_channel_is_shown_or_said():
    sample = replace(example(3, channels=5), channel=2)
    figure = drawn(maps_panel([sample], Style(channels=4)))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [
        *(f'input (channel {number} of 5)' for number in (1, 2, 3)),
        'target',
        'output',
        'output − target',
    ]
    assert labels(figure)[0].startswith('run_3.h5[17]\nchannel 3 of 4\nslice')
    shown = [axes.images[0].get_array() for axes in figure.axes[:5]]
    for number in range(3):
        np.testing.assert_array_equal(shown[number], sample.given[number][3])
    np.testing.assert_array_equal(shown[3], sample.target[3])


@pytest.mark.parametrize(('order', 'count'), [(1, 3), (2, 4), (3, 1)])
def test_examples_are_kept_channel_by_channel(order, count):
    size = (6, 7, 8)[:order]
    batch = {'input': torch.randn(5, 2, *size), 'name': list('abcde')}
    target, output = torch.randn(5, 2, *size), torch.randn(5, 2, *size)
    kept = []
    for _ in range(2):
        keep_examples(kept, batch, target, output, Style(alike=True, channels=2))
    samples = max(1, count // 2)
    assert [(each.name, each.channel) for each in kept] == [('abcde'[n], c) for n in range(samples) for c in (0, 1)]
    np.testing.assert_array_equal(kept[1].given, batch['input'][0, 1:])
    np.testing.assert_array_equal(kept[1].output, output[0, 1])
    one = []
    keep_examples(one, batch, target[:, :1], output[:, :1], Style())
    assert [(each.name, each.channel) for each in one] == [(name, None) for name in 'abcde'[:count]]
    assert one[0].given.shape == (2, *size)


def test_of_many_quantities_each_has_its_error_and_the_rest_is_said():
    truth = RNG.normal(size=(50, 48)) * np.arange(1, 49)
    predicted = truth + np.arange(1, 49) / 10
    truth[::2, 0] = np.nan
    first, *charts = drawn(agreement_panel(truth, predicted, [f'in {hour} h' for hour in range(48)], 70)).axes
    assert first.get_title() == 'each of the 48 quantities'
    assert first.get_xlabel() == 'quantity, in 0 h to in 47 h'
    np.testing.assert_allclose(first.lines[0].get_ydata(), np.arange(1, 49) / 10)
    np.testing.assert_allclose(first.lines[1].get_ydata(), np.nanstd(truth, 0))
    assert [axes.get_xlabel() for axes in charts] == ['true in 0 h', 'true in 24 h', 'true in 47 h']
    texts = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in charts]
    assert [text[1] for text in texts] == ['25 of 70 test samples', '50 of 70 test samples', '50 of 70 test samples']
    assert len(drawn(agreement_panel(truth[:, :4], predicted[:, :4], list('abcd'))).axes) == 4


def test_agreement_is_over_what_is_known():
    truth = np.array([[np.nan], [2.0], [4.0]])
    axes = drawn(agreement_panel(truth, truth + 1, ['x'])).axes[0]
    assert axes.get_title() == 'RMSE = 1, R² = 0.000'
    assert len(axes.collections[0].get_offsets()) == 2
    nothing = drawn(agreement_panel(truth * np.nan, truth, ['x'])).axes[0]
    assert nothing.get_title() == 'none of its values is known'
