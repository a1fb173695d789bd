"""Losses beside what torch gives for the same formula, deep supervision, and metrics that need probabilities."""

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss, TverskyLoss
from torch.nn import functional
from torchmetrics.classification import (
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCalibrationError,
)

from mdnc.training import ArrayData, Classification, DataError, DenseRegression, Segmentation, make_trainer
from mdnc.training.tasks.deep_supervision import level_losses
from mdnc.training.tasks.loss import balanced_weights

RNG = np.random.default_rng(0)
ENCODER = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_length': 3}}
UNET = {'name': 'UNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_planes': 3}}
LOGITS = torch.randn(4, 3, 20, generator=torch.Generator().manual_seed(1))
TARGET = torch.randint(3, (4, 20), generator=torch.Generator().manual_seed(2))
BATCH = {'input': torch.zeros(4, 1, 20), 'target': TARGET}


def _losses(**words):
    return Segmentation(UNET, **words).losses(LOGITS, BATCH)


@pytest.mark.parametrize('focal', [0.0, 0.5, 2.0])
def test_focal_smoothing_and_weights_are_words_of_cross_entropy(focal):
    weights = [1.0, 3.0, 0.5]
    found = _losses(criterion='cross_entropy', focal=focal, smoothing=0.1, class_weights=weights)
    entropy = functional.cross_entropy(LOGITS, TARGET, torch.tensor(weights), label_smoothing=0.1, reduction='none')
    right = LOGITS.softmax(1).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(found, ((1 - right) ** focal * entropy).mean(1))
    task = Classification(ENCODER, focal=focal, smoothing=0.1, class_weights=weights)
    batch = {'input': torch.zeros(4, 1, 20), 'target': TARGET[:, 0]}
    due = (1 - right[:, 0]) ** focal * entropy[:, 0]
    torch.testing.assert_close(task.losses(LOGITS[..., 0], batch), due)


def test_focal_is_the_one_of_monai():
    due = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0, reduction='none')(LOGITS, TARGET[:, None])
    torch.testing.assert_close(_losses(criterion='cross_entropy', focal=2.0), due.sum(1).mean(1))


def _counts(logits, target):
    share, truth = logits.softmax(1), functional.one_hot(target, 3).movedim(-1, 1).float()
    return (share * truth).sum(2), (share * (1 - truth)).sum(2), ((1 - share) * truth).sum(2)


@pytest.mark.parametrize('background', [True, False])
@pytest.mark.parametrize('pooled', [True, False])
@pytest.mark.parametrize('tversky', [None, [0.3, 0.7]])
def test_dice_and_tversky_over_the_classes_and_samples_that_are_named(background, pooled, tversky):
    found = _losses(criterion='dice', background=background, batch_dice=pooled, tversky=tversky)
    met, false, missed = (each.sum(0, keepdim=True) if pooled else each for each in _counts(LOGITS, TARGET))
    a, b = tversky or (0.5, 0.5)
    index = (2 * met + 1) / (2 * met + 2 * a * false + 2 * b * missed + 1)
    due = 1 - index[:, 0 if background else 1 :].mean(1)
    torch.testing.assert_close(found, due.expand(4))


def test_tversky_without_smoothing_terms_is_that_of_monai():
    logits, target = LOGITS.repeat(1, 1, 500), TARGET.repeat(1, 500)
    loss = TverskyLoss(to_onehot_y=True, softmax=True, alpha=0.3, beta=0.7, reduction='none')(logits, target[:, None])
    task = Segmentation(UNET, criterion='dice', tversky=[0.3, 0.7])
    found = task.losses(logits, {'input': torch.zeros(4, 1, 10000), 'target': target})
    torch.testing.assert_close(found, loss.mean(1), atol=2e-4, rtol=1e-3)


def test_fillers_are_not_in_the_sums_of_a_batch():
    weight = torch.tensor([0.5, 0.5, 0.0, 0.0])
    task = Segmentation(UNET, criterion='dice', batch_dice=True)
    both = task.losses(LOGITS[:2], {'input': torch.zeros(2, 1, 20), 'target': TARGET[:2]})
    torch.testing.assert_close(task.losses(LOGITS, {**BATCH, 'weight': weight})[:2], both)


# ---- Weights by how often classes are there ----


def test_balanced_weights_make_each_class_count_as_much():
    weights = np.array(balanced_weights([90, 10, 0]))
    assert weights[2] == 0 and weights[0] * 90 == pytest.approx(weights[1] * 10)
    assert (weights * [90, 10, 0]).sum() == pytest.approx(100)


def _fit(folder, task, x, y, **data):
    source = ArrayData(x, y, batch_size=10, **data)
    trainer = make_trainer(folder, max_epochs=1, enable_progress_bar=False)
    trainer.fit(task, source)
    return trainer, source


def test_balanced_counts_the_training_part_and_travels_with_the_checkpoint(tmp_path):
    y = np.array(['a'] * 30 + ['b'] * 6 + ['c'] * 4)
    task = Classification(ENCODER, class_weights='balanced')
    _, source = _fit(tmp_path, task, RNG.normal(size=(40, 1, 16)), y, split={'val': 0.2, 'seed': 3})
    kept = source.train._numbers
    counts = [int((y[kept] == name).sum()) for name in 'abc']
    assert task.facts['class_counts'] == counts
    np.testing.assert_allclose(task._weights.beside(torch.zeros(1)), balanced_weights(counts), rtol=1e-6)
    again = Classification.load_from_checkpoint(tmp_path)
    np.testing.assert_allclose(again._weights.beside(torch.zeros(1)), balanced_weights(counts), rtol=1e-6)


def test_balanced_counts_positions_of_maps_but_not_those_that_are_not_known(tmp_path):
    y = (np.arange(16) > 11).astype(int)[None].repeat(20, 0)
    y[:, 0] = 2
    task = Segmentation(UNET, class_weights='balanced', ignore=2)
    _, source = _fit(tmp_path, task, RNG.normal(size=(20, 1, 16)), y, split={'val': 0.2})
    assert task.facts['class_counts'] == [11 * len(source.train), 4 * len(source.train), 0]


def test_counts_follow_classes_that_other_data_number_otherwise(tmp_path):
    x = RNG.normal(size=(40, 1, 16))
    task = Classification(ENCODER, class_weights='balanced')
    _fit(tmp_path / 'one', task, x, np.array(['a'] * 20 + ['b'] * 10 + ['c'] * 10), split={'val': 0, 'test': 0})
    _fit(tmp_path / 'two', task, x, np.array(['b'] * 10 + ['c'] * 30), split={'val': 0, 'test': 0})
    assert task.facts['class_counts'] == [0, 10, 30]


def test_balanced_without_counts_is_refused():
    with pytest.raises(ValueError, match="class_weights='balanced' needs the classes of the training part"):
        Segmentation(UNET, class_weights='balanced').losses(LOGITS, BATCH)
    with pytest.raises(DataError, match='the targets are of type float32, not class numbers'):
        ArrayData(np.zeros((20, 1, 8)), np.zeros((20, 2))).class_counts  # noqa: B018


# ---- Losses of MONAI ----


@pytest.mark.parametrize(
    'loss',
    [
        DiceLoss(to_onehot_y=True, softmax=True, reduction='none'),
        FocalLoss(to_onehot_y=True, use_softmax=True, reduction='none'),
        TverskyLoss(to_onehot_y=True, softmax=True, reduction='none'),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_losses_of_monai_are_taken_by_name(loss):
    values = loss(LOGITS, TARGET[:, None])
    torch.testing.assert_close(Segmentation(UNET, loss=loss).losses(LOGITS, BATCH), values.flatten(1).mean(1))


# ---- Several levels ----


def _deep(order, **arguments):
    return {
        'name': f'UNet{order}d',
        'arguments': {'channel': 4, 'layers': [1, 1, 1], 'in_planes': 1, 'deep_supervision': 2, **arguments},
    }


def test_levels_count_by_halves_against_targets_scaled_down():
    def losses(output, batch):
        return functional.cross_entropy(output, batch['target'], reduction='none').mean(1)

    fine, coarse = LOGITS, torch.randn(4, 3, 10, generator=torch.Generator().manual_seed(3))
    found = level_losses(losses, (fine, coarse), BATCH, 'Segmentation')
    small = functional.interpolate(TARGET[:, None].double(), 10, mode='nearest-exact')[:, 0].long()
    due = (losses(fine, BATCH) * 2 + losses(coarse, {'target': small})) / 3
    torch.testing.assert_close(found, due)


@pytest.mark.parametrize('order', [1, 2, 3])
@pytest.mark.parametrize('kind', ['segmentation', 'quantity', 'holes', 'mixed'])
def test_tasks_train_on_several_levels_and_answer_by_the_finest(tmp_path, order, kind):
    size = (15,) * order
    x = RNG.normal(size=(8, 1, *size)).astype('f4')
    y = (
        (x > 0).astype(int)
        if kind in ('segmentation', 'mixed')
        else np.where(x > 1, np.nan if kind == 'holes' else 1, x)
    )
    maker, planes = (Segmentation, 2) if kind in ('segmentation', 'mixed') else (DenseRegression, 1)
    task = maker(_deep(order, out_planes=planes))
    words = {'augmentation': {'mixup': 0.5}} if kind == 'mixed' else {}
    trainer, source = _fit(tmp_path, task, x, y, missing=kind == 'holes', **words)
    trainer.validate(task, source, verbose=False)
    assert task.predict(x).shape[-order:] == size
    assert task.network.training is False or task.eval()(torch.from_numpy(x)).shape[1] == planes


def test_a_tuple_that_is_no_levels_is_refused():
    with pytest.raises(ValueError, match='the network returns a tuple of 2 in training'):
        level_losses(lambda output, batch: output, (LOGITS, LOGITS[:, :1]), BATCH, 'Segmentation')
    with pytest.raises(ValueError, match='deep_supervision needs samples of one size'):
        level_losses(lambda output, batch: output, (LOGITS,), {**BATCH, 'lengths': [1]}, 'Segmentation')


# ---- Metrics of probabilities ----

METRICS = {
    'auroc': MulticlassAUROC(3),
    'precision': MulticlassAveragePrecision(3),
    'top2': MulticlassAccuracy(3, top_k=2, average='micro'),
    'calibration': MulticlassCalibrationError(3),
}


@pytest.mark.parametrize('name', METRICS)
def test_metrics_get_the_probabilities_that_they_need(name):
    for metric in METRICS.values():
        metric.reset()
    shares, target = LOGITS.softmax(1), torch.tensor([0, 1, 2, 1])
    due = METRICS[name].clone()
    due.update(shares[..., 0], target)
    metric = METRICS[name].clone()
    Classification(ENCODER).measure(metric, LOGITS[..., 0], {'input': torch.zeros(4, 1, 20), 'target': target})
    torch.testing.assert_close(metric.compute(), due.compute())
    holes = TARGET.clone()
    holes[:, 5:] = 255
    due, metric = METRICS[name].clone(), METRICS[name].clone()
    due.update(shares[..., :5].movedim(1, -1).reshape(-1, 3), TARGET[:, :5].reshape(-1))
    Segmentation(UNET, ignore=255).measure(metric, LOGITS, {**BATCH, 'target': holes})
    torch.testing.assert_close(metric.compute(), due.compute())


def test_metrics_of_two_classes_get_the_second_ones_probability():
    metric, batch = BinaryAUROC(), {'input': torch.zeros(4, 1, 20), 'target': torch.tensor([0, 1, 0, 1])}
    arguments = {**ENCODER['arguments'], 'out_length': 2}
    Classification({**ENCODER, 'arguments': arguments}).measure(metric, LOGITS[:, :2, 0], batch)
    due = BinaryAUROC()
    due.update(LOGITS[:, :2, 0].softmax(1)[:, 1], batch['target'])
    assert metric.compute() == due.compute()
    with pytest.raises(ValueError, match='BinaryAUROC is for two classes, but there are 3: use MulticlassAUROC'):
        Classification(ENCODER).measure(BinaryAUROC(), LOGITS[..., 0], batch)


# ---- What is refused ----


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *(('focal', value) for value in (-1, float('nan'), 'a', None, True)),
        *(('smoothing', value) for value in (-0.1, 1, 'a', None)),
        *(('class_weights', value) for value in ('even', [1, 2], [0, 0, 0], [1, 2, -1], 3)),
        *((name, value) for name in ('background', 'batch_dice') for value in (1, 'no', None)),
        *(('tversky', value) for value in ([0, 0], [1], [1, -1], 0.5, 'a')),
    ],
    ids=str,
)
def test_words_out_of_range_are_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=rf'Segmentation: {name}'):
        Segmentation(UNET, **{name: value})
