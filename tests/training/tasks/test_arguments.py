"""Each argument of each task and loss: what is out of its range is refused by name, NumPy's values are plain ones."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics import MeanMetric

from mdnc.training import (
    ArrayData,
    Classification,
    DenseRegression,
    Reconstruction,
    Regression,
    Segmentation,
    make_trainer,
)

ENCODER = {'name': 'EncoderNet1d', 'arguments': {'channel': 2, 'layers': [1, 1], 'out_length': 2}}
UNET = {'name': 'UNet1d', 'arguments': {'channel': 2, 'layers': [1, 1], 'block': 'plain', 'out_planes': 2}}
KINDS = {
    Classification: ENCODER,
    Regression: ENCODER,
    Segmentation: UNET,
    DenseRegression: UNET,
    Reconstruction: UNET,
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        ({'lr': -1}, ValueError, 'lr must be > 0, not -1'),
        ({'lr': math.nan}, ValueError, 'lr must be > 0, not nan'),
        ({'lr': math.inf}, ValueError, 'lr must be > 0, not inf'),
        ({'lr': '0.1'}, TypeError, "lr must be > 0, a number, not '0.1'"),
        ({'lr': True}, TypeError, 'lr must be > 0, a number, not True'),
        ({'weight_decay': -0.1}, ValueError, 'weight_decay must be ≥ 0, not -0.1'),
        ({'weight_decay': math.inf}, ValueError, 'weight_decay must be ≥ 0'),
        ({'warmup': 1}, ValueError, r'warmup must be in \[0, 1\), not 1'),
        ({'warmup': -0.1}, ValueError, r'warmup must be in \[0, 1\)'),
        ({'schedule': None}, ValueError, 'schedule=None must be one of cosine, constant, plateau'),
        ({'optimizer': 'SGD'}, TypeError, "optimizer='SGD' must be a function that makes an optimizer"),
        ({'loss': nn.MSELoss}, TypeError, 'loss=<class .*> must be a module made with'),
        ({'loss': 'mse'}, TypeError, "loss='mse' must be a module"),
        (
            {'loss': nn.Linear(2, 2)},
            ValueError,
            'loss=Linear has parameters, but only those of the network are trained',
        ),
        ({'metrics': [MeanMetric()]}, TypeError, 'metrics=.* must be a dictionary of metrics'),
        ({'metrics': {'a': 3}}, TypeError, 'metrics=.* must be a dictionary of metrics'),
        ({'metrics': {'loss': MeanMetric()}}, ValueError, "'loss' cannot be the name of a metric"),
        ({'metrics': {'a.b': MeanMetric()}}, ValueError, r"'a\.b' cannot be the name of a metric"),
        ({'data': [1]}, TypeError, r'data=\[1\] must be a dictionary'),
    ],
)
def test_what_all_tasks_share(kind, options, error, text):
    with pytest.raises(error, match=f'^{kind.__name__}: {text}'):
        kind(KINDS[kind], **options)


@pytest.mark.parametrize(
    ('kind', 'options', 'error', 'text'),
    [
        (Classification, {'smoothing': -1}, ValueError, r'smoothing must be in \[0, 1\), not -1'),
        (Classification, {'smoothing': 1.0}, ValueError, r'smoothing must be in \[0, 1\), not 1.0'),
        (Classification, {'smoothing': None}, TypeError, 'smoothing must be'),
        (Classification, {'class_weights': [1.0, -1.0]}, ValueError, r'class_weights\[1\] must be ≥ 0, not -1.0'),
        (
            Classification,
            {'class_weights': [0, 0]},
            ValueError,
            'class_weights=.* must be 2 numbers, .* not all',
        ),
        (Classification, {'class_weights': [1, 1, 1]}, ValueError, 'class_weights=.* must be 2 numbers, one per class'),
        (Classification, {'class_weights': []}, ValueError, r'class_weights=\[\] must be 2 numbers'),
        (Classification, {'class_weights': [1, math.nan]}, ValueError, r'class_weights\[1\] must be ≥ 0, not nan'),
        (Classification, {'class_weights': [1, 'a']}, TypeError, r'class_weights\[1\] must be ≥ 0, a number'),
        (
            Classification,
            {'class_weights': 'even'},
            TypeError,
            "class_weights='even' must be a list of 2",
        ),
        (Classification, {'class_weights': {0: 1, 1: 2}}, TypeError, 'class_weights=.* must be a list of 2 numbers'),
        (Regression, {'criterion': None}, ValueError, 'criterion must be one of .* not None'),
        (Regression, {'names': ['a', 'a']}, ValueError, 'names=.* must be 2 names, one per quantity, all different'),
        (Regression, {'names': 'ab'}, TypeError, "names='ab' must be 2 names"),
        (Regression, {'names': [1, 2]}, TypeError, r'names=\[1, 2\] must be 2 names'),
        (Segmentation, {'criterion': 3}, ValueError, 'criterion must be one of'),
        (Segmentation, {'ignore': 0.5}, TypeError, 'ignore=0.5 must be an int'),
        (Segmentation, {'ignore': None}, TypeError, 'ignore=None must be an int'),
        (Segmentation, {'probabilities': 'yes'}, TypeError, "probabilities='yes' must be true or false"),
        (Reconstruction, {'residual': 1}, TypeError, 'residual=1 must be true or false'),
    ],
)
def test_what_is_a_task_s_own(kind, options, error, text):
    with pytest.raises(error, match=f'^{kind.__name__}: {text}'):
        kind(KINDS[kind], **options)


def test_numpy_s_values_are_kept_as_plain_ones():
    task = Classification(
        ENCODER,
        smoothing=np.float32(0.5),
        class_weights=np.array([1, 2]),
        lr=np.float64(0.25),
        weight_decay=np.int64(0),
    )
    kept = {key: task.hparams[key] for key in ('smoothing', 'class_weights', 'lr', 'weight_decay')}
    assert kept == {'smoothing': 0.5, 'class_weights': [1.0, 2.0], 'lr': 0.25, 'weight_decay': 0.0}
    assert {type(value) for value in kept.values()} == {float, list}
    assert Segmentation(UNET, ignore=np.uint8(255), probabilities=np.True_).hparams['ignore'] == 255
    assert Regression(ENCODER, names=np.array(['a', 'b'])).names() == ['a', 'b']


def test_class_weights_count_in_the_loss():
    batch = {'target': torch.tensor([0, 1])}
    output = torch.randn(2, 2)
    plain = Classification(ENCODER).losses(output, batch)
    torch.testing.assert_close(
        Classification(ENCODER, class_weights=[0.5, 3]).losses(output, batch), plain * torch.tensor([0.5, 3.0])
    )


@pytest.mark.parametrize(
    ('kind', 'net'), [(Segmentation, 'UNet1d'), (Segmentation, 'AE1d'), (Classification, 'UNet1d')]
)
def test_one_class_is_none(kind, net):
    arguments = {'channel': 2, 'layers': [1, 1], 'block': 'plain'}
    with pytest.raises(
        ValueError, match=f'{net} has 1 output .* at least 2: set out_planes of the network to the number of'
    ):
        kind({'name': net, 'arguments': arguments})
    with pytest.raises(ValueError, match=r'Linear has 1 output .* set the outputs of the last layer of the network'):
        Classification(nn.Linear(3, 1))


def test_networks_of_another_task_are_told_so():
    batch = {'input': torch.zeros(2, 1, 16), 'target': torch.zeros(2, 16, dtype=torch.int64)}
    with pytest.raises(ValueError, match=r'Segmentation: the network returns \(2,\) per sample, .* as a U-Net does'):
        Segmentation(ENCODER).losses(torch.zeros(2, 2), batch)
    with pytest.raises(
        ValueError, match=r'Classification: the network returns \(2, 16\) per sample, .* one value per class'
    ):
        Classification(UNET).losses(torch.zeros(2, 2, 16), {**batch, 'target': torch.zeros(2, dtype=torch.int64)})
    task = Regression(ENCODER)
    task.learn({'target_normalisation': {'mean': [0.0, 1.0], 'std': [1.0, 1.0]}})
    with pytest.raises(
        ValueError, match=r'Regression: the network returns \(2,\) per sample, but the targets are \(1,\)'
    ):
        task.losses(torch.zeros(2, 2), {**batch, 'target': torch.zeros(2)})


def test_smoothing_spreads_a_share_of_each_target():
    batch = {'target': torch.tensor([0, 1])}
    output = torch.randn(2, 2)
    both = [Classification(ENCODER).losses(output, {'target': torch.full((2,), number)}) for number in (0, 1)]
    mean, plain = (both[0] + both[1]) / 2, Classification(ENCODER).losses(output, batch)
    smoothed = Classification(ENCODER, smoothing=0.3).losses(output, batch)
    torch.testing.assert_close(smoothed, 0.7 * plain + 0.3 * mean)


@pytest.mark.parametrize(('criterion', 'value'), [('mse', 9.0), ('mae', 3.0), ('huber', 2.5)])
def test_each_criterion_of_quantities(criterion, value):
    batch = {'input': torch.zeros(1, 1, 16), 'target': torch.zeros(1, 2)}
    assert Regression(ENCODER, criterion=criterion).losses(torch.full((1, 2), 3.0), batch).item() == value


def test_each_criterion_of_masks():
    batch = {'input': torch.zeros(1, 1, 8), 'target': torch.tensor([[0, 1] * 4])}
    output = torch.randn(1, 2, 8)
    entropy, dice, both = (
        Segmentation(UNET, criterion=word).losses(output, batch) for word in ('cross_entropy', 'dice', 'both')
    )
    torch.testing.assert_close(entropy + dice, both)
    torch.testing.assert_close(entropy, nn.functional.cross_entropy(output, batch['target'])[None])
    assert 0 < dice.item() < 1


def test_decay_and_rate_reach_the_optimizer(tmp_path):
    task = Classification(ENCODER, lr=0.5, weight_decay=0.25, warmup=0, schedule='constant')
    trainer = make_trainer(tmp_path, max_epochs=1, accelerator='cpu', enable_progress_bar=False)
    trainer.fit(task, ArrayData(np.zeros((20, 1, 16)) + np.arange(16), np.arange(20) % 2))
    groups = trainer.optimizers[0].param_groups
    assert [(group['lr'], group['weight_decay']) for group in groups] == [(0.5, 0.25), (0.5, 0.0)]
