"""Each task learns, says what it means, and comes back from its checkpoint as it was."""

import itertools
import math

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassPrecision

from mdnc.modules import resnet
from mdnc.training import ArrayData, Classification, DenseRegression, Reconstruction, Regression, Segmentation, Split
from mdnc.training.run import quieten
from mdnc.training.tasks.network import build_network, describe_network, output_channels
from mdnc.training.tasks.task import cosine_factor, decaying_names, parameter_groups

SIZES = {1: (24,), 2: (12, 11), 3: (8, 9, 8)}
RNG = np.random.default_rng(0)


def waves(order, count=24):
    """Inputs whose amplitude, channel mean and sign can be learnt."""
    size = SIZES[order]
    amplitude = RNG.uniform(1, 3, count)
    x = RNG.normal(size=(count, 1, *size)) * amplitude.reshape(-1, *(1,) * (order + 1))
    return x.astype(np.float32), amplitude.astype(np.float32)


def encoder(order, out):
    return {'name': f'EncoderNet{order}d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_length': out}}


def unet(order, out):
    arguments = {'channel': 4, 'layers': [1, 1], 'block': 'plain', 'out_planes': out}
    return {'name': f'UNet{order}d', 'arguments': arguments}


def make(kind, order, **options):
    """A task and the data that suit it."""
    x, amplitude = waves(order)
    if kind is Classification:
        return Classification(encoder(order, 2), **options), (x, (amplitude > 2).astype(int))
    if kind is Regression:
        return Regression(encoder(order, 1), **options), (x, amplitude)
    if kind is Segmentation:
        return Segmentation(unet(order, 2), **options), (x, (x[:, 0] > 0).astype(int))
    if kind is DenseRegression:
        return DenseRegression(unet(order, 1), **options), (x, 3 * np.abs(x[:, 0]) + 100)
    net = {**unet(order, 1), 'name': f'AE{order}d'}
    return Reconstruction(net, **options), (x, None)


def trainer(tmp_path, **options):
    quieten()
    plain = {'logger': False, 'enable_progress_bar': False, 'enable_model_summary': False, 'num_sanity_val_steps': 0}
    options = {'accelerator': 'cpu', 'max_epochs': 2, 'use_distributed_sampler': False, **plain, **options}
    return L.Trainer(default_root_dir=tmp_path, **options)


KINDS = [Classification, Regression, Segmentation, DenseRegression, Reconstruction]


@pytest.mark.parametrize('order', [1, 2, 3])
@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)
def test_tasks_run_in_every_order_and_return_from_their_checkpoint(kind, order, tmp_path):
    torch.manual_seed(0)
    task, (x, y) = make(kind, order)
    data = ArrayData(x, y, batch_size=7, split=Split(0.2, 0.2))
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(task, data)
    figures = runner.test(task, data, verbose=False)[0]
    assert all(math.isfinite(value) for value in figures.values())
    assert {f'test/{name}' for name in task.labels} <= set(figures)
    runner.save_checkpoint(tmp_path / 'task.ckpt')
    stored = torch.load(tmp_path / 'task.ckpt', weights_only=True)['hyper_parameters']
    assert stored['network']['name'] == type(task.network).__name__
    assert build_network(stored['network'])
    assert stored['data']['normalisation'] == data.facts['normalisation']
    back = kind.load_from_checkpoint(tmp_path / 'task.ckpt').eval()
    batch = torch.from_numpy(x[:2])
    with torch.no_grad():
        torch.testing.assert_close(back.predicted(back(batch)), task.eval().predicted(task(batch)), rtol=0, atol=0)
    assert runner.test(back, data, verbose=False)[0] == figures
    assert [path.name for path in task.pictures(tmp_path, [{'epoch': 0, 'train/loss': 1.0}])] == ['results.png']


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)
def test_tasks_learn(kind, tmp_path):
    torch.manual_seed(0)
    task, (x, y) = make(kind, 1, lr=0.01)
    losses = []

    class Watchdog(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(outputs['loss']))

    data = ArrayData(x, y, batch_size=12, split=Split(0, 0))
    trainer(tmp_path, max_epochs=20, callbacks=[Watchdog()], enable_checkpointing=False).fit(task, data)
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_quantities_are_reported_in_their_own_units():
    task, _ = make(DenseRegression, 1)
    task.learn({'target_normalisation': {'mean': [100.0], 'std': [4.0]}})
    batch = {'input': torch.zeros(2, 1, 24), 'target': torch.full((2, 24), 108.0)}
    output = torch.full((2, 1, 24), 1.0)
    assert task.predicted(output).unique().item() == 104
    torch.testing.assert_close(task.losses(output, batch), torch.ones(2))  # (2 − 1)² in standard units
    predicted, truth = task.compared(output, batch)
    assert predicted.shape == truth.shape
    assert (truth - predicted).unique().item() == 4


def test_quantities_of_different_units_are_reported_one_by_one(tmp_path):
    x = waves(1)[0]
    y = np.stack([np.zeros(24), np.arange(24) * 100.0], 1)
    task = Regression(encoder(1, 2), names=['time (s)', 'mass (g)'])
    figures = trainer(tmp_path).test(task, ArrayData(x, y, split=Split(0, 0.5)), verbose=False)[0]
    assert figures['test/rmse_mass (g)'] > 100 > figures['test/rmse_time (s)']
    assert task.pictures(tmp_path, [])
    with pytest.raises(ValueError, match=r"names=\['a'\] must be 2 names"):
        Regression(encoder(1, 2), names=['a'])


def test_each_channel_of_the_input_is_normalised_by_its_own_figures():
    task = Classification(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    task.learn({'normalisation': {'mean': [1.0, 3.0], 'std': [2.0, 4.0]}})
    x = torch.tensor([[[3.0, 1.0], [7.0, 3.0]]])
    torch.testing.assert_close(task(x), task.network(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])))


def test_holes_count_neither_in_loss_nor_in_metrics():
    task, _ = make(DenseRegression, 1)
    target, known = torch.zeros(1, 24), torch.arange(24)[None] < 6
    batch = {'input': torch.zeros(1, 1, 24), 'target': target, 'known': known}
    output = torch.where(known, 2.0, 50.0)[:, None]
    assert task.losses(output, batch).item() == 4
    assert task.compared(output, batch)[0].tolist() == [2.0] * 6


def test_ignored_voxels_count_neither_in_loss_nor_in_metrics():
    task, _ = make(Segmentation, 1, ignore=255)
    target = torch.tensor([[0, 1, 255, 255]])
    right = torch.nn.functional.one_hot(torch.tensor([[0, 1, 0, 1]]), 2).movedim(-1, 1) * 40.0
    batch = {'input': torch.zeros(1, 1, 4), 'target': target}
    task.check(batch)
    assert task.losses(right, batch).item() < 1e-6
    task.val_metrics['accuracy'].update(*task.compared(right, batch))
    assert task.val_metrics['accuracy'].compute() == 1


def test_reconstruction_tells_how_far_the_noisy_input_is_off(tmp_path):
    x = waves(1)[0]
    task = Reconstruction(unet(1, 1), residual=True)
    nn.init.zeros_(task.network.conv_final.weight)
    nn.init.zeros_(task.network.conv_final.bias)
    data = ArrayData(x, batch_size=6, corruption=0.5, split=Split(0, 0.5))
    figures = trainer(tmp_path).test(task, data, verbose=False)[0]
    # A network that adds nothing leaves the noise as it is.
    assert figures['test/rmse'] == pytest.approx(figures['test/rmse_of_input'], rel=1e-5)
    assert figures['test/rmse_of_input'] == pytest.approx(0.5, rel=0.1)


def test_reconstruction_of_the_first_channels_of_the_input(tmp_path):
    x = np.concatenate([waves(1)[0], 100 + waves(1)[0]], 1)
    network = unet(1, 1)
    network['arguments']['in_planes'] = 2
    task = Reconstruction(network, residual=True, lr=1e-12)
    nn.init.zeros_(task.network.conv_final.weight)
    nn.init.zeros_(task.network.conv_final.bias)
    data = ArrayData(x, x[:, :1] + 0.5, batch_size=6, split=Split(0, 0.5))
    run = trainer(tmp_path)
    run.fit(task, data)
    figures = run.test(task, data, verbose=False)[0]
    assert figures['test/rmse'] == pytest.approx(0.5, rel=1e-4)
    assert figures['test/rmse_of_input'] == pytest.approx(0.5, rel=1e-4)


def test_decay_leaves_norms_slopes_and_biases_alone():
    net = resnet.UNet1d(4, [1, 1])
    decaying, others = parameter_groups(net, decaying_names(net), 0.1)
    assert (decaying['weight_decay'], others['weight_decay']) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    assert len(decaying['params']) + len(others['params']) == len(names)
    for part in net.modules():
        if isinstance(part, nn.Conv1d | nn.Linear):
            assert any(part.weight is parameter for parameter in decaying['params'])
        if isinstance(part, nn.PReLU | nn.InstanceNorm1d):
            assert any(part.weight is parameter for parameter in others['params'])


def test_decay_is_told_by_name_where_parameters_are_flat_pieces():
    net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2))
    names = decaying_names(net)
    wrapper = nn.Module()
    wrapper._fsdp_wrapped_module = net
    for part in net:
        part.weight = nn.Parameter(part.weight.detach().flatten())
    decaying, others = parameter_groups(wrapper, names, 0.1)
    assert [len(parameter) for parameter in decaying['params']] == [6]
    assert len(others['params']) == 3


def test_the_learning_rate_rises_then_falls_to_nothing():
    factors = [cosine_factor(step, 10, 100) for step in range(101)]
    assert factors[0] == 0.1
    assert factors[9] == factors[10] == 1
    assert factors[100] == pytest.approx(0)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))


def test_any_module_optimizer_loss_and_metric(tmp_path):
    x, amplitude = waves(1)
    data = ArrayData(x, (amplitude > 2).astype(int), split=Split(0.25, 0))
    task = Classification(
        nn.Sequential(nn.Flatten(), nn.Linear(24, 2)),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.5),
        loss=nn.MultiMarginLoss(reduction='none'),
        metrics={'precision': MulticlassPrecision(2)},
        schedule='constant',
        warmup=0,
    )
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(task, data)
    assert isinstance(runner.optimizers[0], torch.optim.SGD)
    assert runner.optimizers[0].param_groups[0]['lr'] == 0.5
    assert 0 <= runner.callback_metrics['val/precision'] <= 1


def test_a_loss_that_reduces_by_itself_is_refused():
    with pytest.raises(ValueError, match="MSELoss must return one value per sample or element: use reduction='none'"):
        Regression(nn.Linear(3, 1), loss=nn.MSELoss()).losses(
            torch.zeros(2, 1), {'input': torch.zeros(2, 1, 3), 'target': torch.zeros(2)}
        )


def test_sample_weights_leave_fillers_out():
    task, _ = make(Classification, 1)
    batch = {'input': torch.randn(3, 1, 24), 'target': torch.tensor([0, 1, 1]), 'weight': torch.tensor([0.5, 0.5, 0.0])}
    with torch.no_grad():
        loss = task.training_step(batch, 0)['loss']
        alone = task.losses(task(batch['input'][:2]), {'target': batch['target'][:2]})
    torch.testing.assert_close(loss, alone.mean())
    torch.testing.assert_close(task.train_metrics['loss'].compute().float(), alone.mean())
    assert task.train_metrics['accuracy'].tp.sum() + task.train_metrics['accuracy'].fn.sum() == 2


@pytest.mark.parametrize(
    ('network', 'text'),
    [
        ({'name': 'Encoder'}, "unknown network 'Encoder'; choose from AE1d, "),
        ({'name': 'torch.nn.Nothing'}, "network 'torch.nn.Nothing' cannot be imported"),
        ({'name': 'EncoderNet1d', 'arguments': {'chanel': 3}}, "EncoderNet1d refuses its arguments .*'chanel'"),
        ({'name': 'EncoderNet1d', 'arguments': {'channel': 0, 'layers': [1, 1]}}, 'EncoderNet1d refuses .*channel'),
        ({'nme': 'EncoderNet1d'}, r"network must be a module or \{'name': …"),
        ({'name': 'torch.nn.Linear', 'arguments': None}, 'was given as a module'),
    ],
)
def test_networks_that_cannot_be_built(network, text):
    with pytest.raises(ValueError, match=text):
        Classification(network)


def test_networks_by_name_and_back():
    net = build_network({'name': 'unet16', 'arguments': {'order': 1}})
    described = describe_network(net)
    assert described['name'] == 'UNet1d'
    assert [tuple(p.shape) for p in build_network(described).parameters()] == [tuple(p.shape) for p in net.parameters()]
    assert describe_network(nn.Linear(1, 2)) == {'name': 'torch.nn.modules.linear.Linear', 'arguments': None}
    with pytest.raises(ValueError, match='ReLU has no linear or convolutional layer'):
        output_channels(nn.ReLU())


@pytest.mark.parametrize(
    ('kind', 'target', 'text'),
    [
        (
            Classification,
            None,
            'Classification: targets must be class numbers, integers of shape .2,.; a batch has nothing',
        ),
        (Classification, torch.zeros(2), r'a batch has float32 \(2,\)'),
        (Classification, torch.tensor([1, 2]), 'has classes 0 to 1, but the target of sample b holds 2'),
        (Classification, torch.tensor([-1, 0]), 'the target of sample a holds -1'),
        (
            Segmentation,
            torch.zeros(2, 5, dtype=torch.int64),
            r'integers of shape \(2, 24\); a batch has int64 \(2, 5\)',
        ),
        (Segmentation, torch.full((2, 24), 9), 'the target of sample a holds 9'),
        (Regression, None, 'Regression: the data have no targets'),
    ],
)
def test_targets_that_do_not_suit_the_task(kind, target, text):
    task, _ = make(kind, 1)
    batch = {'input': torch.zeros(2, 1, 24), 'name': ['a', 'b']} | ({} if target is None else {'target': target})
    with pytest.raises(ValueError, match=text):
        task.check(batch)


def test_an_output_of_another_shape_than_the_target_is_refused():
    task, _ = make(Regression, 1)
    with pytest.raises(
        ValueError, match=r'Regression: the network returns \(1,\) per sample, but the targets are \(3,\)'
    ):
        task.losses(torch.zeros(2, 1), {'input': torch.zeros(2, 1, 24), 'target': torch.zeros(2, 3)})


@pytest.mark.parametrize(
    ('kind', 'options', 'text'),
    [
        (Classification, {'lr': 0}, 'Classification: lr must be > 0'),
        (Classification, {'schedule': 'linear'}, 'cosine, constant, plateau'),
        (Regression, {'criterion': 'l2'}, r"Regression: criterion must be one of \['mse', 'mae', 'huber'\], not 'l2'"),
        (Segmentation, {'criterion': 'iou'}, "Segmentation: criterion must be one of .*, not 'iou'"),
    ],
)
def test_options_out_of_range(kind, options, text):
    with pytest.raises(ValueError, match=text):
        make(kind, 1, **options)


def test_a_schedule_without_an_end_is_refused(tmp_path):
    task, (x, y) = make(Classification, 1)
    with pytest.raises(ValueError, match='the schedule needs an end: set max_epochs or max_steps'):
        trainer(tmp_path, max_epochs=-1, max_steps=-1).fit(task, ArrayData(x, y, split=Split(0, 0)))


def test_a_network_for_another_number_of_classes_is_refused():
    task = Classification(encoder(1, 3), data={'classes': ['cat', 'dog']})
    with pytest.raises(ValueError, match='the network has outputs for 3 classes, but the data have 2: cat, dog'):
        task.describe({'target': torch.tensor([0, 1])})
