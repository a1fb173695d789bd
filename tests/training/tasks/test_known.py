"""What is not known counts nowhere: loss, metrics, confusion, charts, pictures; so does a sample of weight 0."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics import MeanSquaredError

from mdnc.training import (
    ArrayData,
    Classification,
    DenseRegression,
    Reconstruction,
    Regression,
    Segmentation,
    Split,
    make_trainer,
)
from mdnc.training.saving import Keeper
from mdnc.training.tasks.loss import Entropy, class_losses, dice_losses, sample_means
from mdnc.training.tasks.metrics import CaseDice, KnownError, Points

RNG = np.random.default_rng(0)
TWO = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_length': 2}}
UNET = {'name': 'UNet1d', 'arguments': {'channel': 2, 'layers': [1, 1], 'block': 'plain', 'out_planes': 2}}


def runner(folder):
    return make_trainer(folder, max_epochs=1, accelerator='cpu', enable_progress_bar=False)


def test_the_error_of_each_quantity_is_its_own_whether_values_may_be_missing_or_not(tmp_path):
    x = RNG.normal(size=(60, 1, 32)).astype('f4')
    y = np.stack([RNG.normal(size=60), 100 * RNG.normal(size=60)], 1).astype('f4')
    figures = []
    for missing in (False, True):
        torch.manual_seed(0)
        data = ArrayData(x, y, batch_size=10, missing=missing, split=Split(0.2, 0.3))
        task = Regression(TWO, names=['metres', 'grams'])
        figures.append(runner(tmp_path).test(task, data, verbose=False)[0])
    assert figures[0] == pytest.approx(figures[1])
    assert figures[0]['test/rmse_grams'] > 10 * figures[0]['test/rmse_metres']


def test_what_is_not_known_is_neither_drawn_nor_counted(tmp_path):
    x, y = RNG.normal(size=(40, 1, 32)).astype('f4'), RNG.normal(size=(40, 2)).astype('f4')
    y[:, 0] += 1000
    y[::2, 0] = np.nan
    task, data = Regression(TWO), ArrayData(x, y, batch_size=7, missing=True, split=Split(0.2, 0.5))
    figures = runner(tmp_path).test(task, data, verbose=False)[0]
    [(predicted, truth)] = task._kept
    true = np.stack([data.test.item(index, None)['target'] for index in range(len(data.test))])
    known = np.stack([data.test.item(index, None)['known'] for index in range(len(data.test))])
    assert 0 < known[:, 0].sum() < len(known)
    np.testing.assert_array_equal(truth, np.where(known, true, np.nan))
    off = np.where(known, predicted - true, 0)
    each = np.sqrt((off**2).sum(0) / known.sum(0))
    assert figures['test/rmse_value 1'] == pytest.approx(each[0], rel=1e-4)
    assert figures['test/rmse'] == pytest.approx(math.sqrt((off**2).sum() / known.sum()), rel=1e-4)
    assert task.facts['target_normalisation']['mean'][0] == pytest.approx(1000, abs=2)


def test_a_metric_of_many_outputs_is_not_fed_one_row():
    task = Regression(TWO, metrics={'each': MeanSquaredError(num_outputs=2)})
    batch = {'input': torch.zeros(3, 1, 32), 'target': torch.ones(3, 2), 'known': torch.ones(3, 2, dtype=torch.bool)}
    with pytest.raises(
        ValueError, match='missing=true in the data, MeanSquaredError gets the known targets of all quantities together'
    ):
        task._count('val', torch.zeros(3, 2), torch.zeros(3), batch)
    task._count('val', torch.zeros(3, 2), torch.zeros(3), {key: batch[key] for key in ('input', 'target')})
    assert task.val_metrics['each'].compute().tolist() == [1.0, 1.0]


def test_errors_of_each_quantity_are_over_what_is_known():
    error = KnownError(2)
    error.update(
        torch.tensor([[1.0, 5.0], [3.0, 9.0]]), torch.zeros(2, 2), torch.tensor([[True, False], [True, False]])
    )
    assert error.compute()[0] == pytest.approx(math.sqrt(5))
    assert error.compute()[1].isnan()


def test_points_are_merged_up_to_a_number_and_counted_all():
    points = Points(2, 5)
    for _ in range(3):
        points.update(torch.ones(3, 2), torch.zeros(3, 2))
    predicted, truth, seen = points.compute()
    assert (predicted.shape, truth.shape, seen) == ((5, 2), (5, 2), 9)
    nothing = Points(2, 5)
    nothing.update(torch.zeros(0, 2), torch.zeros(0, 2))
    assert nothing.compute()[0].shape == (0, 2)


def test_unknown_positions_change_a_loss_that_is_not_near_0_by_nothing():
    logits = torch.randn(2, 3, 8, requires_grad=True)
    target = torch.randint(3, (2, 8))
    known = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0], dtype=torch.bool).expand(2, 8)
    holed = torch.where(known, target, 255)
    for losses in (
        lambda logits, target, known: class_losses(logits, target, None, Entropy(0.1, 0.0, 255)),
        dice_losses,
        lambda logits, target, known: nn.CrossEntropyLoss(reduction='none')(logits, target.where(known, 0))[:, :5].mean(
            1
        ),
    ):
        all_known = torch.ones(2, 5, dtype=torch.bool)
        whole = losses(logits[..., :5], target[:, :5], all_known)
        assert (whole > 0.1).all()
        torch.testing.assert_close(losses(logits, holed, known), whole)
        logits.grad = None
        losses(logits, holed, known).sum().backward()
        assert logits.grad[..., 5:].abs().max() == 0
        assert logits.grad[..., :5].abs().min() > 0


@pytest.mark.parametrize('criterion', ['cross_entropy', 'dice', 'both'])
@pytest.mark.parametrize('loss', [None, nn.CrossEntropyLoss(reduction='none')])
def test_a_segmentation_leaves_unknown_voxels_out_everywhere(criterion, loss, tmp_path):
    task = Segmentation(UNET, criterion=criterion, ignore=255, loss=loss)
    x = torch.randn(2, 1, 16)
    target = torch.randint(2, (2, 16))
    target[:, 10:] = 255
    batch = {'input': x, 'target': target, 'name': ['a', 'b']}
    output = torch.randn(2, 2, 16)
    other = output.clone()
    other[..., 10:] = 100 * torch.randn(2, 2, 6)
    torch.testing.assert_close(task.losses(output, batch), task.losses(other, batch))
    assert task.losses(output, batch).min() > 0.05
    figures = []
    for answer in (output, other):
        task._count('val', answer, task.losses(answer, batch), batch)
        figures.append([metric.compute().tolist() for metric in task.val_metrics.values()])
        task._restart('val')
    assert figures[0] == figures[1]
    task.collect(output, batch)
    assert np.isnan(task._kept[0].target[10:]).all()
    assert np.isfinite(task._kept[0].target[:10]).all()


def test_a_sample_of_which_nothing_is_known_has_no_loss_and_no_figure():
    task = Segmentation(UNET, ignore=255)
    target = torch.randint(2, (2, 16))
    target[1] = 255
    batch = {'input': torch.randn(2, 1, 16), 'target': target}
    output = torch.randn(2, 2, 16)
    losses = task.losses(output, batch)
    assert losses[1] == 0
    task._count('val', output, losses, batch)
    assert task.val_metrics['loss'].compute() == losses[0] > 0.1


@pytest.mark.parametrize('kind', [DenseRegression, Reconstruction])
def test_holes_in_maps_may_hold_anything(kind):
    task = kind({**UNET, 'arguments': {**UNET['arguments'], 'out_planes': 1}})
    known = torch.arange(16)[None, None] < 10
    batch = {
        'input': torch.randn(1, 1, 16),
        'target': torch.zeros(1, 1, 16),
        'known': known,
        'name': ['a'],
    }
    output = torch.where(known, 3.0, torch.inf)
    assert task.losses(output, batch).item() == 9
    task._count('val', output, task.losses(output, batch), batch)
    assert task.val_metrics['rmse'].compute() == 3
    task.collect(output, batch)
    assert np.isnan(task._kept[0].target[10:]).all()
    if kind is Reconstruction:
        task._noisy = True
        task.before.reset()
        task.collect(output, {**batch, 'input': torch.where(known, 2.0, 1e6)})
        assert task.before.compute() == 2


def test_means_pass_over_what_is_not_known_even_if_it_is_nan():
    values = torch.tensor([[1.0, torch.nan, 3.0]])
    assert sample_means(values, torch.tensor([[True, False, True]])).item() == 2
    assert sample_means(values, torch.zeros(1, 3, dtype=torch.bool)).item() == 0


def test_a_loss_that_cannot_leave_positions_out_is_refused():
    class Summed(nn.Module):
        def forward(self, output, target):
            return output.flatten(1).sum(1)

    task = Segmentation(UNET, loss=Summed(), ignore=255)
    batch = {'input': torch.zeros(1, 1, 4), 'target': torch.tensor([[0, 1, 0, 1]])}
    assert task.losses(torch.ones(1, 2, 4), batch).item() == 8
    with pytest.raises(ValueError, match=r'loss: Summed returns values \(1,\), so it cannot ignore'):
        task.losses(torch.ones(1, 2, 4), {**batch, 'target': torch.tensor([[0, 1, 255, 1]])})


@torch.no_grad()
def test_samples_of_weight_0_are_in_no_figure_and_no_picture():
    torch.manual_seed(0)
    weight = torch.tensor([0.5, 0.0, 0.5])
    target = torch.tensor([0, 1, 1])
    task = Classification(TWO).eval()
    task.test_step({'input': torch.randn(3, 1, 32), 'target': target, 'weight': weight, 'name': ['a', 'b', 'c']}, 0)
    assert task.confusion.confmat.sum() == 2
    dense = DenseRegression({**UNET, 'arguments': {**UNET['arguments'], 'out_planes': 1}}).eval()
    batch = {'input': torch.randn(3, 1, 16), 'target': torch.zeros(3, 16), 'weight': weight, 'name': ['a', 'b', 'c']}
    dense.test_step(batch, 0)
    assert [example.name for example in dense._kept] == ['a', 'c']
    vector = Regression(TWO).eval()
    vector.test_step({**batch, 'input': torch.randn(3, 1, 32), 'target': torch.zeros(3, 2)}, 0)
    assert vector._points.compute()[2] == 2


def test_a_class_number_of_minus_100_is_no_class():
    batch = {'input': torch.zeros(2, 1, 32), 'target': torch.tensor([0, -100]), 'name': ['a', 'b']}
    with pytest.raises(ValueError, match='the target of sample b holds -100'):
        Classification(TWO).check(batch)


def test_a_figure_that_is_not_known_is_no_best_one():
    keeper = Keeper()
    scores = [math.nan, 0.5, math.nan, 0.7, 0.6, None]
    best = [keeper._is_best({} if score is None else {'val/loss': score}, ('val/loss', 'max')) for score in scores]
    assert best == [True, True, False, True, False, False]
    assert keeper.best_score == 0.7


def test_dice_of_cases_is_that_of_a_plain_loop_and_may_choose_the_checkpoint():
    generator = torch.Generator().manual_seed(0)
    given, true = (torch.randint(0, 3, (5, 6, 7), generator=generator) for _ in range(2))
    given[0], true[0], true[1, 0] = 0, 0, 255  # a sample without any class, and positions that are not known
    metric = CaseDice(4, 255)
    metric.update(given[:2], true[:2])
    metric.update(given[2:], true[2:])
    scores = {1: [], 2: []}
    for row in range(1, 5):
        for number, found in scores.items():
            known = true[row] != 255
            mine, theirs = (given[row] == number) & known, (true[row] == number) & known
            found.append(float(2 * (mine & theirs).sum() / (mine.sum() + theirs.sum())))
    assert float(metric.compute()) == pytest.approx(np.mean([np.mean(found) for found in scores.values()]))
    empty = CaseDice(2, 255)
    empty.update(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long))
    assert torch.isnan(empty.compute())
    network = {'name': 'UNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_planes': 3}}
    assert Segmentation(network).figures()['val/dice_case'] == 'max'
