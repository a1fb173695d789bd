"""A run with averaged weights beside a plain loop over torch: one network in all that is made of the run."""

import copy
import csv
import json
import signal

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

import mdnc
from mdnc.cli import main
from mdnc.modules.resnet import EncoderNet1d
from mdnc.training import ArrayData
from mdnc.training.checkpoint import BEST, FOLDER

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning')
DECAY, EPOCHS, RATE = 0.9, 4, 0.02
OPTIONS = {'split': {'val': 0.2, 'test': 0.2}, 'batch_size': 8, 'seed': 3}
# Batch norm has statistics, which belong to the averaged network too.
NETWORK = {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_length': 2, 'normalizer': 'batch'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Noisy signals of two classes, and a network that the training starts from."""
    place = tmp_path_factory.mktemp('averaged')
    chance = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = 20 + 3 * chance.standard_normal((60, 1, 16)) + 2 * np.sin(np.arange(16) * (1 + y[:, None, None]))
    np.save(place / 'x.npy', x.astype('f4'))
    np.save(place / 'y.npy', y)
    torch.manual_seed(0)
    EncoderNet1d(**NETWORK).save_pretrained(place / 'start')
    model = {'network': {'name': 'EncoderNet1d', 'arguments': NETWORK}, 'weights': str(place / 'start')}
    model |= {'ema': DECAY, 'lr': RATE, 'warmup': 0.0, 'schedule': 'constant', 'weight_decay': 0.0}
    data = {'inputs': str(place / 'x.npy'), 'targets': str(place / 'y.npy'), **OPTIONS}
    recipe = {
        'model': {'class_path': 'Classification', 'init_args': model},
        'data': {'class_path': 'ArrayData', 'init_args': data},
        'trainer': {'max_epochs': EPOCHS, 'accelerator': 'cpu', 'enable_progress_bar': False},
    }
    (place / 'noisy.yaml').write_text(yaml.safe_dump(recipe))
    return place


def _batches(data, part):
    loader = getattr(data, f'{part}_dataloader')()
    return [(batch['input'], batch['target']) for batch in loader]


def _moved(average, network, count):
    if average is None:
        return copy.deepcopy(network)
    kept = min(DECAY, (1 + count) / (10 + count))
    for old, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.mul_(kept).add_(now, alpha=1 - kept)
    return average


@torch.no_grad()
def _figures(network, batches, scale):
    x, y = (torch.cat(each) for each in zip(*batches, strict=True))
    scores = copy.deepcopy(network).eval()(scale(x))
    return float(functional.cross_entropy(scores, y)), float((scores.argmax(1) == y).double().mean())


@pytest.fixture(scope='module')
def due(folder):
    """Figures of each epoch, and the averaged network of the best one, by a loop over torch's own parts."""
    data = ArrayData(str(folder / 'x.npy'), str(folder / 'y.npy'), **OPTIONS)
    data.setup()
    loader, known = data.train_dataloader(), torch.cat([x for x, _ in _batches(data, 'train')]).double()

    def scale(x):
        return ((x - known.mean()) / known.std(correction=0)).float()

    network = mdnc.checkpoints.load(folder / 'start').train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0)
    average, count, rows, best = None, 0, [], None
    for epoch in range(EPOCHS):
        loader.batch_sampler.set_epoch(epoch)
        for batch in loader:
            optimizer.zero_grad()
            functional.cross_entropy(network(scale(batch['input'])), batch['target']).backward()
            optimizer.step()
            average = _moved(average, network, count)
            count += 1
        rows.append(_figures(average, _batches(data, 'val'), scale))
        if best is None or rows[-1][1] >= best[0]:
            best = rows[-1][1], copy.deepcopy(average).eval()
    x = torch.cat([x for x, _ in _batches(data, 'test')])
    with torch.no_grad():
        probabilities = best[1](scale(x)).softmax(1)
    return {
        'rows': rows,
        'test': _figures(best[1], _batches(data, 'test'), scale),
        'state': best[1].state_dict(),
        'x': x,
        'probabilities': probabilities,
        'trained': network.state_dict(),
    }


@pytest.fixture(scope='module')
def run(folder):
    """A run that was stopped in the middle of its second epoch, and continued."""
    run_dir, place = folder / 'run', ['--trainer.default_root_dir', str(folder / 'run')]
    stop = ['--trainer.callbacks+=tests.training.points.SignalAt', '--trainer.callbacks.batch', '7']
    stop += ['--trainer.callbacks.number', str(int(signal.SIGTERM))]
    with pytest.raises(SystemExit) as left:
        main(['fit', '--config', str(folder / 'noisy.yaml'), *place, *stop])
    assert left.value.code == 143
    assert main(['fit', '--continue', str(run_dir)]) == 0
    return run_dir


def test_what_is_validated_and_tested_is_the_average(run, due):
    with (run / 'metrics.csv').open() as file:
        rows = [(float(row['val/loss']), float(row['val/accuracy'])) for row in csv.DictReader(file)]
    np.testing.assert_allclose(rows, due['rows'], atol=1e-4)
    written = json.loads((run / 'test.json').read_text())
    np.testing.assert_allclose((written['test/loss'], written['test/accuracy']), due['test'], atol=1e-4)
    (run / 'test.json').unlink()
    assert main(['test', '--config', str(run)]) == 0
    again = json.loads((run / 'test.json').read_text())
    assert (again['test/loss'], again['test/accuracy']) == (written['test/loss'], written['test/accuracy'])


def test_what_is_loaded_and_predicted_is_the_average(run, due, tmp_path):
    for name, value in mdnc.checkpoints.load(run / FOLDER / BEST).state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, due['state'][name], atol=1e-4, rtol=1e-3)
    far = [name for name, value in due['trained'].items() if (value - due['state'][name]).abs().max() > 0.01]
    assert far, 'the average is another network than the one that is trained'
    assert main(['predict', '--config', str(run), '--output', str(tmp_path / 'p.npz')]) == 0
    np.testing.assert_allclose(np.load(tmp_path / 'p.npz')['prediction'], due['probabilities'], atol=1e-4)
    np.testing.assert_allclose(mdnc.load(run)(due['x'].numpy()), due['probabilities'], atol=1e-4)


def test_what_is_exported_is_the_average(run, due, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    for kind, name in (('onnx', 'net.onnx'), ('torch', 'net.pt2')):
        assert main(['export', str(run), '--format', kind, '--output', str(tmp_path / name)]) == 0
    session = onnxruntime.InferenceSession(tmp_path / 'net.onnx', providers=['CPUExecutionProvider'])
    (found,) = session.run(None, {'x': due['x'].numpy()})
    np.testing.assert_allclose(found, due['probabilities'], atol=1e-4)
    found = torch.export.load(tmp_path / 'net.pt2').module()(due['x'])
    torch.testing.assert_close(found, due['probabilities'], atol=1e-4, rtol=0)
