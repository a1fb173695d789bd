"""Batches of one's own and of unequal sizes: what counts is what counts sample by sample."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import mdnc
from mdnc.modules import pad_batch
from mdnc.training import Classification, DenseRegression, Reconstruction, Regression, Segmentation, make_trainer

ENCODER = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_length': 2}}
UNET = {'name': 'UNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'block': 'plain', 'out_planes': 2}}


class Plain(nn.Module):
    """A network that knows nothing of lengths."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(1, 2, 3, padding=1)

    def forward(self, x):
        return self.layer(x)


class Stream(IterableDataset):
    def __iter__(self):
        for number in range(8):
            yield torch.full((1, 16), float(number)), number % 2


class Given:
    """Batches one after the other."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def trainer(folder, **options):
    return make_trainer(folder, accelerator='cpu', enable_progress_bar=False, **options)


def tones(count=24):
    y = torch.arange(count) % 2
    wave = torch.sin(torch.linspace(0, 6.28, 16) * (1 + 3 * y[:, None]) + torch.rand(count, 1))
    return wave[:, None], y


@pytest.mark.parametrize('kind', ['loader', 'iterable', 'numpy', 'dictionaries'])
def test_loaders_of_ones_own_train_test_and_predict(kind, tmp_path):
    torch.manual_seed(0)
    x, y = tones()
    pairs = [(x[part : part + 8], y[part : part + 8].int()) for part in (0, 8, 16)]
    batches = {
        'loader': DataLoader(TensorDataset(x, y), batch_size=8),
        'iterable': Given(pairs),
        'numpy': Given([(given.double().numpy(), wanted.numpy()) for given, wanted in pairs]),
        'dictionaries': Given([{'input': given, 'target': wanted.long()} for given, wanted in pairs]),
    }[kind]
    task = Classification(ENCODER, lr=0.02)
    run = trainer(tmp_path, max_epochs=8)
    run.fit(task, batches, batches)
    assert run.test(task, batches, ckpt_path='best', verbose=False)[0]['test/accuracy'] == 1
    inputs = Given([x[:8].numpy() if kind == 'numpy' else x[:8]])
    found = trainer(tmp_path).predict(task, inputs)
    torch.testing.assert_close(found[0], task.predict(x[:8]))
    # What a checkpoint says of such data is how the output is meant.
    again = mdnc.checkpoints.load(tmp_path)
    torch.testing.assert_close(again.predict(x[:8]), found[0])


def test_a_stream_without_a_length_needs_steps(tmp_path):
    with pytest.raises(ValueError, match='number of batches of the data is unknown: set max_steps'):
        trainer(tmp_path, max_epochs=1).fit(Classification(ENCODER), DataLoader(Stream(), batch_size=4))
    run = trainer(tmp_path, max_steps=3)
    run.fit(Classification(ENCODER), DataLoader(Stream(), batch_size=4))
    assert run.global_step == 3


@pytest.mark.parametrize(
    ('batch', 'text'),
    [
        ('words', 'not a str of str'),
        ([torch.zeros(2, 1, 8)] * 3, 'a pair'),
        ((torch.zeros(2, 1, 8), 3), 'of Tensor, int'),
        ({'x': torch.zeros(2, 1, 8)}, 'not a dictionary of x'),
        ((torch.zeros(1, 8), torch.tensor(1)), 'single samples: use a torch DataLoader'),
        ((torch.zeros(2, 1, 8), torch.zeros(3)), 'not one target per sample'),
    ],
)
def test_what_is_no_batch_is_refused(batch, text):
    with pytest.raises(TypeError, match=f'Classification: .*{text}'):
        Classification(ENCODER).training_step(batch, 0)


def test_targets_of_ones_own_are_checked(tmp_path):
    loader = Given([(torch.zeros(2, 1, 8), torch.tensor([0, 2]))])
    with pytest.raises(ValueError, match='0 to 1, but the target of sample number 1 of its batch holds 2'):
        trainer(tmp_path, max_epochs=1).fit(Classification(ENCODER), loader)


def ragged(kind):
    """Three samples of unequal size, and their targets."""
    torch.manual_seed(0)
    samples = [torch.randn(1, size) for size in (12, 31, 20)]
    if kind is Segmentation:
        return samples, [(each[0] > 0).long() for each in samples]
    return samples, [torch.cat((2 * each, -each)) for each in samples]


def padded(samples, targets):
    x, lengths = pad_batch(samples)
    y = pad_batch([each[None].float() if each.ndim == 1 else each for each in targets])[0]
    return {'input': x, 'target': y[:, 0].long() if targets[0].ndim == 1 else y, 'lengths': lengths[:, None]}


@pytest.mark.parametrize('network', [UNET, Plain()])
@pytest.mark.parametrize('kind', [Segmentation, DenseRegression])
def test_padding_counts_nowhere(kind, network):
    task = kind(network).eval().requires_grad_(False)
    samples, targets = ragged(kind)
    batch = padded(samples, targets)
    task.test_step(batch, 0)
    together = {name: metric.compute() for name, metric in task.test_metrics.items()}
    for metric in task.test_metrics.values():
        metric.reset()
    for sample, target in zip(samples, targets, strict=True):
        task.test_step((sample[None], target[None]), 0)
    for name, metric in task.test_metrics.items():
        torch.testing.assert_close(metric.compute(), together[name], msg=name)
    for found, sample in zip(task.predict_step(batch, 0), samples, strict=True):
        torch.testing.assert_close(found, task.predict_step((sample[None],), 0)[0])


@pytest.mark.parametrize('network', [UNET, Plain()])
def test_padding_changes_no_gradient(network):
    task = Segmentation(network)
    batch = padded(*ragged(Segmentation))
    other = {**batch, 'input': torch.where(batch['input'] == 0, 9.0, batch['input'])}
    gradients = []
    for each in (batch, other):
        task.zero_grad()
        task.training_step(each, 0)['loss'].backward()
        gradients.append([p.grad.clone() for p in task.network.parameters()])
    torch.testing.assert_close(*gradients)


def test_lists_of_unequal_sizes_are_answered_as_alone():
    samples = [each.numpy() for each in ragged(Segmentation)[0]]
    vectors = Regression(ENCODER)
    found = vectors.predict(samples)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(
        found, np.concatenate([vectors.predict(each[None]) for each in samples]), rtol=1e-4, atol=1e-6
    )
    maps = Reconstruction(nn.Conv1d(1, 1, 3, padding=1))
    for each, sample in zip(maps.predict(samples), samples, strict=True):
        np.testing.assert_allclose(each, maps.predict(sample[None])[0], rtol=1e-5)


def test_padded_batches_in_tiles():
    task = Segmentation(UNET).eval()
    task.learn({'patch': [8], 'overlap': 0.25})
    samples, targets = ragged(Segmentation)
    for found, sample in zip(task.predict_step(padded(samples, targets), 0), samples, strict=True):
        torch.testing.assert_close(found, task.predict_step((sample[None],), 0)[0])
