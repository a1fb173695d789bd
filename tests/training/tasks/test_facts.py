"""What a checkpoint knows of its data, and what other data say: learnt once, compared, mapped by name or refused."""

import numpy as np
import pytest
import torch

from mdnc.training import ArrayData, Classification, Reconstruction, Regression, Segmentation, make_trainer
from mdnc.training.data.datamodule import SampleData

T = np.linspace(0, 1, 32)
RNG = np.random.default_rng(0)


def waves(frequency, count=30):
    return np.stack([np.sin(2 * np.pi * (frequency * T + p)) for p in RNG.random(count)])[:, None].astype('f4')


X = np.concatenate([waves(f) for f in (2, 5, 9)])
Y = np.repeat(['a', 'b', 'c'], 30)


def net(count):
    return {
        'name': 'EncoderNet1d',
        'arguments': {'channel': 8, 'layers': [1, 1], 'in_planes': 1, 'out_length': count},
    }


def runner(folder, epochs=1):
    return make_trainer(folder, max_epochs=epochs, accelerator='cpu', enable_progress_bar=False)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Three classes, well told apart."""
    folder = tmp_path_factory.mktemp('three')
    torch.manual_seed(0)
    trainer = runner(folder, 15)
    trainer.fit(task := Classification(net(3), lr=0.01), ArrayData(X, Y, batch_size=20))
    assert trainer.test(task, ArrayData(X, Y), verbose=False)[0]['test/accuracy'] == 1
    trainer.save_checkpoint(folder / 'c.ckpt')
    return folder / 'c.ckpt'


@pytest.mark.parametrize('names', [['b', 'c'], ['c', 'a'], ['c', 'b', 'a']])
def test_classes_are_known_by_name_whatever_their_numbers(checkpoint, tmp_path, names):
    task, trainer = Classification.load_from_checkpoint(checkpoint), runner(tmp_path)
    some = np.isin(Y, names)
    data = ArrayData(*({'train': part[some], 'test': part[some]} for part in (X, Y)), classes=names)
    for _ in range(2):
        assert trainer.test(task, data, verbose=False)[0]['test/accuracy'] == 1
    assert task.facts['classes'] == ['a', 'b', 'c']
    assert np.trace(task._counts.numpy()) == some.sum()
    batch = {'input': torch.zeros(2, 1, 32), 'target': torch.tensor([0, 1])}
    assert task.describe(batch)[0] == f'classes in the batch: {", ".join(sorted(names[:2]))} (2 of 3)'
    # The task's own data again: their numbers are its own.
    assert trainer.test(task, ArrayData(X, Y), verbose=False)[0]['test/accuracy'] == 1


def test_classes_that_were_never_learnt_are_refused(checkpoint, tmp_path):
    task, data = Classification.load_from_checkpoint(checkpoint), ArrayData(X, np.where(Y == 'a', 'z', Y))
    for verb in ('test', 'validate'):
        with pytest.raises(ValueError, match=r'the data have the classes z, which .* not trained on; it knows a, b, c'):
            getattr(runner(tmp_path), verb)(task, data)
    with pytest.raises(ValueError, match='the classes z'):
        runner(tmp_path).test(Classification(net(3)), data, ckpt_path=checkpoint)
    # To predict no classes are needed.
    assert len(runner(tmp_path).predict(task, data)) == 1


def test_going_on_keeps_the_classes_and_fine_tuning_takes_new_ones(checkpoint, tmp_path):
    some = Y != 'a'
    task = Classification.load_from_checkpoint(checkpoint)
    runner(tmp_path).fit(task, ArrayData(X[some], Y[some]))
    assert task.facts['classes'] == ['a', 'b', 'c']
    assert task.target({'target': torch.tensor([0, 1])}).tolist() == [1, 2]
    named = np.array([{'a': 'apple', 'b': 'pear', 'c': 'plum'}[name] for name in Y])
    data = ArrayData(X, named)
    runner(tmp_path).fit(task, data)
    assert task.facts['classes'] == ['apple', 'pear', 'plum'] == data.classes
    assert task.target({'target': torch.tensor([0, 1])}).tolist() == [0, 1]
    with pytest.raises(
        ValueError, match=r'has outputs for 3 classes, but the data have 2: b, d; set out_length .* to 2'
    ):
        runner(tmp_path).fit(task, ArrayData(X[some], np.where(Y[some] == 'c', 'd', 'b')))


def test_a_run_that_goes_on_refuses_other_classes(checkpoint, tmp_path):
    with pytest.raises(ValueError, match='the classes z'):
        runner(tmp_path, 20).fit(Classification(net(3)), ArrayData(X, np.where(Y == 'a', 'z', Y)), ckpt_path=checkpoint)


def test_masks_are_known_by_name_too_and_the_unknown_stays_so():
    unet = {'name': 'UNet1d', 'arguments': {'channel': 2, 'layers': [1, 1], 'block': 'plain', 'out_planes': 3}}
    task = Segmentation(unet, ignore=255)
    task._places = [2, 0]
    batch = {'input': torch.zeros(1, 1, 4), 'target': torch.tensor([[0, 1, 255, 0]]), 'name': ['s']}
    assert task.target(batch).tolist() == [[2, 0, 255, 2]]
    task.check(batch)
    with pytest.raises(ValueError, match='classes 0 to 1, but the target of sample s holds 2'):
        task.check({**batch, 'target': torch.tensor([[2, 1, 255, 0]])})


def test_fine_tuning_learns_the_units_of_the_targets_anew(tmp_path):
    q = X.std((1, 2))
    task = Regression(net(1))
    runner(tmp_path).fit(task, ArrayData(X, q))
    before = task.facts
    runner(tmp_path).fit(task, ArrayData(X + 7, 1e4 * q + 5e5))
    after = task.facts
    assert after['target_normalisation']['mean'][0] == pytest.approx(
        1e4 * before['target_normalisation']['mean'][0] + 5e5
    )
    assert after['normalisation']['mean'][0] == pytest.approx(before['normalisation']['mean'][0] + 7, abs=1e-4)
    figures = runner(tmp_path).test(task, ArrayData(X + 7, 1e4 * q + 5e5), verbose=False)[0]
    assert figures['test/loss'] < 10


def test_a_run_that_goes_on_keeps_the_units(tmp_path):
    q = X.std((1, 2))
    trainer = runner(tmp_path)
    trainer.fit(task := Regression(net(1)), ArrayData(X, q))
    trainer.save_checkpoint(tmp_path / 'r.ckpt')
    again = Regression(net(1))
    runner(tmp_path, 2).fit(again, ArrayData(X + 7, q), ckpt_path=tmp_path / 'r.ckpt')
    assert again.facts == task.facts


def test_what_was_normalised_is_not_run_unnormalised(checkpoint, tmp_path):
    task = Classification.load_from_checkpoint(checkpoint)
    with pytest.raises(ValueError, match='the data have normalise=false, but the network was trained on normalised'):
        runner(tmp_path).test(task, ArrayData(X, Y, normalise=False))


def test_the_size_of_tiles_is_what_is_configured(tmp_path):
    net = {'name': 'AE1d', 'arguments': {'channel': 2, 'layers': [1, 1], 'block': 'plain'}}
    task = Reconstruction(net)
    runner(tmp_path).fit(task, ArrayData(X, patch=[16]))
    assert (task.facts['patch'], task.facts['overlap']) == ([16], 0.25)
    runner(tmp_path).test(task, ArrayData(X), verbose=False)
    assert task.facts['patch'] == [16]
    runner(tmp_path).test(task, ArrayData(X, patch=[24], overlap=0.5), verbose=False)
    assert (task.facts['patch'], task.facts['overlap']) == ([24], 0.5)
    assert task._steps.patch == [24]


def test_a_residual_is_not_switched_off_behind_its_network(tmp_path):
    net = {'name': 'AE1d', 'arguments': {'channel': 2, 'layers': [1, 1], 'block': 'plain'}}
    trainer = runner(tmp_path)
    trainer.fit(Reconstruction(net, residual=True), ArrayData(X, corruption=0.1))
    trainer.save_checkpoint(tmp_path / 'r.ckpt')
    assert Reconstruction.load_from_checkpoint(tmp_path / 'r.ckpt').residual
    for load in (
        lambda: Reconstruction.load_from_checkpoint(tmp_path / 'r.ckpt', residual=False),
        lambda: runner(tmp_path).test(Reconstruction(net), ArrayData(X), ckpt_path=tmp_path / 'r.ckpt'),
    ):
        with pytest.raises(ValueError, match=r'residual=false, but the network .* with residual=true'):
            load()


@pytest.fixture
def readings(monkeypatch):
    """How often the training part was read for its figures, and in which step of which task."""
    found, within = [], []
    facts, forward = SampleData.facts.fget, Classification.forward

    def counted(self):
        found.append(bool(within))
        return facts(self)

    def watched(self, *given):
        within.append(1)
        try:
            return forward(self, *given)
        finally:
            within.pop()

    monkeypatch.setattr(SampleData, 'facts', property(counted))
    monkeypatch.setattr(Classification, 'forward', watched)
    return found


def test_the_training_part_is_read_once_a_run_and_never_in_a_step(tmp_path, readings, checkpoint):
    data = ArrayData(X, Y)
    trainer = runner(tmp_path, 2)
    trainer.fit(task := Classification(net(3)), data)
    assert readings == [False]
    trainer.test(task, data, verbose=False)
    runner(tmp_path).predict(task, data)
    runner(tmp_path).fit(task, data)
    assert readings == [False], 'the same data say the same'
    runner(tmp_path).test(Classification(net(3)), data, ckpt_path=checkpoint, verbose=False)
    runner(tmp_path, 20).fit(Classification(net(3)), ArrayData(X, Y), ckpt_path=checkpoint)
    assert readings == [False], 'a checkpoint knows it'
    runner(tmp_path).test(Classification(net(3)), data, verbose=False)
    assert readings == [False, False]


def test_a_gradient_passes_after_a_test(tmp_path):
    data = ArrayData(X, Y)
    task, trainer = Classification(net(3), class_weights=[1, 2, 3]), runner(tmp_path)
    trainer.test(task, data, verbose=False)
    x = torch.randn(2, 1, 32, requires_grad=True)
    task.losses(task(x), {'target': torch.tensor([0, 1])}).sum().backward()
    assert x.grad.abs().sum() > 0
    # Metrics that were reset in inference mode are counted in outside it, too.
    make_trainer(tmp_path, accelerator='cpu', inference_mode=False, enable_progress_bar=False).test(
        task, data, verbose=False
    )
    task.eval().test_step({'input': x.detach(), 'target': torch.tensor([0, 1])}, 0)


def test_a_broken_off_test_leaves_nothing_behind(tmp_path):
    task, data = Classification(net(3)), ArrayData(X, Y)
    figures = runner(tmp_path).test(task, data, verbose=False)
    for metric in (*task.test_metrics.values(), task.confusion):
        metric.update(torch.tensor([1.0])) if metric is task.test_metrics['loss'] else metric.update(
            torch.tensor([1, 1]), torch.tensor([0, 0])
        )
    assert runner(tmp_path).test(task, data, verbose=False) == figures
    assert task._counts.sum() == len(data.test)


def test_samples_of_another_shape_are_named(checkpoint):
    task = Classification.load_from_checkpoint(checkpoint)
    for call in (task, task.predict):
        for shape in ((2, 3, 32), (1, 32), (2, 1, 32, 32)):
            with pytest.raises(ValueError, match=r'the input has shape .* have \(B, 1, L1\): 1 channel$'):
                call(torch.zeros(shape))


@pytest.mark.parametrize('normalise', [True, False])
def test_one_channel_is_no_sample_of_three_whatever_the_network_would_take(tmp_path, normalise):
    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 2)

        def forward(self, x):
            return self.layer(x.mean((1, 2))[:, None])

    task, data = Classification(Mean()), ArrayData(RNG.normal(size=(20, 3, 8)), np.arange(20) % 2, normalise=normalise)
    runner(tmp_path).fit(task, data)
    assert task.predict(np.zeros((1, 3, 8))).shape == (1, 2)
    for call in (task, task.predict):
        with pytest.raises(ValueError, match=r'shape \(2, 1, 8\), but training samples have \(B, 3, L1\): 3 channels'):
            call(torch.zeros(2, 1, 8))
