"""Tiles as one batch, weighted by a tent or a Gaussian, and mirrored predictions, beside plain loops over torch."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

import mdnc
from mdnc.training import ArrayData, Segmentation, make_trainer
from mdnc.training.tiling import run_tiled, tile_starts

RNG = np.random.default_rng(0)
SIZES = [(29,), (21, 17), (12, 11, 10)]


def _net(order):
    torch.manual_seed(0)
    net = getattr(mdnc.modules.resnet, f'UNet{order}d')(4, [1, 1], out_planes=2)
    return net.eval()


def _answered(net, x, mirror=(), **data):
    known = {'answer': {'output': 'scores', 'dense': True}, 'mirror': list(mirror), **data}
    return mdnc.checkpoints.Answer(net, known).predict(x)


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_mirrored_predictions_are_the_mean_of_a_plain_loop(size):
    net, x = _net(len(size)), torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1))
    axes = range(len(size))
    images = [each for count in range(len(size) + 1) for each in combinations(axes, count)]
    with torch.no_grad():
        due = sum(net(x.flip([axis + 2 for axis in each])).flip([axis + 2 for axis in each]) for each in images)
    torch.testing.assert_close(_answered(net, x, mirror=axes), due / len(images))
    assert not torch.allclose(_answered(net, x), due / len(images), atol=1e-4)


def test_classes_of_samples_are_averaged_over_mirror_images():
    torch.manual_seed(0)
    net = mdnc.modules.resnet.EncoderNet1d(4, [1, 1], out_length=3).eval()
    x = torch.randn(3, 1, 20)
    with torch.no_grad():
        due = ((net(x) + net(x.flip(2))) / 2).softmax(1)
    known = {'answer': {'output': 'probabilities'}, 'mirror': [0]}
    torch.testing.assert_close(mdnc.checkpoints.Answer(net, known).predict(x), due)
    with pytest.raises(ValueError, match=r'mirror=\[1\] names an axis that samples with 1 axes do not have'):
        mdnc.checkpoints.Answer(net, {**known, 'mirror': [1]}).predict(x)


def _tiled(net, x, tile, overlap, blend):
    size = x.shape[2:]
    total, counts = torch.zeros(len(x), 2, *size), torch.zeros(size)
    for starts in product(*(tile_starts(*axis, overlap) for axis in zip(size, tile, strict=True))):
        place = (..., *(slice(at, at + length) for at, length in zip(starts, tile, strict=True)))
        weight = torch.ones(())
        for length in tile:
            at = torch.arange(length) - (length - 1) / 2
            tent = (length + 1) / 2 - at.abs()
            weight = weight[..., None] * (tent if blend == 'tent' else torch.exp(-32 * (at / length) ** 2))
        with torch.no_grad():
            total[place] += net(x[place]) * weight
        counts[place] += weight
    return total / counts


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
@pytest.mark.parametrize('blend', ['tent', 'gaussian'])
@pytest.mark.parametrize('at_once', [1, 3])
def test_tiles_are_blended_by_their_weights_however_many_run_at_once(size, blend, at_once):
    net, x = _net(len(size)), torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1))
    tile, batches = [8] * len(size), []

    def run(part):
        batches.append(len(part))
        return net(part)

    with torch.no_grad():
        found = run_tiled(run, x, tile, 0.5, blend, at_once)
    torch.testing.assert_close(found, _tiled(net, x, tile, 0.5, blend), atol=1e-5, rtol=1e-4)
    assert max(batches) == (2 * at_once if len(size) > 1 else 2)
    words = {'patch': tile, 'overlap': 0.5, 'blend': blend, 'tiles': at_once}
    torch.testing.assert_close(_answered(net, x, **words), found)


@pytest.mark.parametrize('words', [{'blend': 'cone'}, {'at_once': 0}])
def test_tiles_out_of_range_are_refused(words):
    with pytest.raises(ValueError, match=rf'^run_tiled: {next(iter(words))}='):
        run_tiled(lambda x: x, torch.zeros(1, 1, 9), [4], **words)


def test_words_of_new_data_hold_and_those_of_the_run_else(tmp_path):
    x = RNG.normal(size=(12, 1, 40)).astype('f4')
    network = {'name': 'UNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_planes': 2}}
    task = Segmentation(network, probabilities=True)
    data = ArrayData(x, (x[:, 0] > 0).astype(int), patch=[16], mirror=[0], blend='gaussian', batch_size=4)
    trainer = make_trainer(tmp_path, max_epochs=1, enable_progress_bar=False)
    trainer.fit(task, data)
    net = mdnc.checkpoints.load(tmp_path)
    assert (net.origin.data['mirror'], net.origin.data['blend']) == ([0], 'gaussian')
    for words, known in (({}, {}), ({'mirror': [], 'blend': 'tent'}, {'mirror': [], 'blend': 'tent', 'overlap': 0.25})):
        other = ArrayData(x, patch=[16], predict=x, **words)
        found = torch.cat(
            make_trainer(tmp_path, enable_progress_bar=False).predict(
                Segmentation.load_from_checkpoint(tmp_path), other
            )
        )
        due = mdnc.checkpoints.Answer(net, {**net.origin.data, **known}).predict(torch.from_numpy(x))
        torch.testing.assert_close(found, due, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *(('mirror', value) for value in ([3], [-1], [0, 0], 0, '0', [True])),
        *(('tiles', value) for value in (0, -1, 1.5, 'a', True)),
        *(('blend', value) for value in ('cone', '', 3)),
    ],
    ids=str,
)
def test_words_out_of_range_are_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=f'^ArrayData: {name}='):
        ArrayData(np.zeros((20, 1, 8)), **{name: value})
