"""Several networks answer as one: the mean of a plain loop over torch, with the spread, in every way in."""

import csv
import re

import h5py
import numpy as np
import pytest
import torch
import yaml

import mdnc
from mdnc.checkpoints import Answer, Ensemble
from mdnc.cli import main
from mdnc.modules.resnet import EncoderNet1d, UNet1d, UNet3d
from mdnc.training.tiling import run_tiled

RNG = np.random.default_rng(0)


def nets(make, count=3):
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        found.append(make().eval())
    return found


def scale(number):
    return {'mean': [1.0 + number / 10], 'std': [2.0 + number / 10]}


def ensemble(networks, output, dense=False, **data):
    told = {'answer': {'output': output, 'dense': dense}, **data}
    return Ensemble([Answer(net, {**told, 'normalisation': scale(number)}) for number, net in enumerate(networks)])


def scores(networks, x, run=lambda net, x: net(x)):
    """What a plain loop makes of networks whose data had scales of their own."""
    with torch.no_grad():
        rows = [run(net, (x - 1 - number / 10) / (2 + number / 10)) for number, net in enumerate(networks)]
    return torch.stack(rows)


def entropy(shares, axis):
    return -(shares * shares.log()).sum(axis, keepdim=True)


@pytest.mark.parametrize('kind', ['values', 'probabilities', 'shares'])
def test_the_answer_is_the_mean_and_the_spread_that_of_a_plain_loop(kind):
    networks, x = nets(lambda: EncoderNet1d(4, [1, 1], out_length=3)), torch.randn(5, 1, 20)
    found, each = ensemble(networks, kind), scores(networks, x)
    shares = {'values': each, 'probabilities': each.softmax(2), 'shares': each.sigmoid()}[kind]
    torch.testing.assert_close(found.predict(x), shares.mean(0))
    if kind == 'values':
        due = shares.std(0, unbiased=False)
    elif kind == 'probabilities':
        due = torch.cat((entropy(shares.mean(0), 1), entropy(shares.mean(0), 1) - entropy(shares, 2).mean(0)), 1)
    else:
        both = torch.stack((shares, 1 - shares))
        whole = entropy(both.mean(1), 0)[0]
        due = torch.cat((whole, whole - entropy(both, 0)[0].mean(0)), 1)
    torch.testing.assert_close(found.spread().predict(x), due, atol=1e-5, rtol=1e-4)


def test_classes_are_those_of_the_mean_probability():
    networks, x = nets(lambda: UNet1d(4, [1, 1], out_planes=3)), torch.randn(2, 1, 40)
    found = ensemble(networks, 'classes', dense=True)
    due = scores(networks, x).softmax(2).mean(0)
    assert torch.equal(found.predict(x), due.argmax(1).byte())
    torch.testing.assert_close(found.giving('probabilities').predict(x), due)


@pytest.mark.parametrize('normalisation', [None, {'by': 'sample'}])
def test_slabs_of_networks_with_other_tiles_and_mirrors_are_those_of_the_whole(normalisation):
    networks, x = nets(lambda: UNet3d(2, [1, 1], block='plain', out_planes=2)), torch.randn(1, 1, 21, 9, 10)
    told = {'answer': {'output': 'probabilities', 'dense': True}, 'blend': 'gaussian', 'overlap': 0.5, 'mirror': [1]}
    tiles = ([8, 8, 8], [12, 8, 8], None)
    told['normalisation'] = normalisation
    found = Ensemble([Answer(net, {**told, 'patch': tile}) for net, tile in zip(networks, tiles, strict=True)])
    given, x = x, x if normalisation is None else (x - x.mean()) / x.std(unbiased=False)

    def mirrored(net, x):
        return (net(x) + net(x.flip(3)).flip(3)) / 2

    with torch.no_grad():
        rows = [
            run_tiled(lambda part, net=net: mirrored(net, part), x, tile or list(x.shape[2:]), 0.5, 'gaussian')
            for net, tile in zip(networks, tiles, strict=True)
        ]
    due = torch.stack(rows).softmax(2).mean(0)
    torch.testing.assert_close(found.predict(given), due, atol=1e-5, rtol=1e-4)
    whole, apart = torch.zeros_like(due), torch.zeros(1, 2, 21, 9, 10)
    starts = []
    for start, answer, spread in found.slabs(given, spread=True):
        starts.append(start)
        whole[:, :, start : start + answer.shape[2]] = answer
        apart[:, :, start : start + answer.shape[2]] = spread
    assert len(starts) > 3
    torch.testing.assert_close(whole, due, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(apart, found.spread().predict(given))


FACTS = {
    'answer': {'output': 'probabilities', 'dense': False},
    'input': [1, 20],
    'classes': ['a', 'b'],
    'normalisation': {'mean': [20.0], 'std': [3.0]},
}


@pytest.mark.parametrize(
    ('other', 'text'),
    [
        ({'classes': ['b', 'a']}, r"their classes differ, \['a', 'b'\] and \['b', 'a'\]"),
        ({'input': [2, 20]}, 'their inputs differ, 1 channels of 1 axes and 2 channels of 1 axes'),
        ({'input': [1, 20, 20]}, 'their inputs differ'),
        ({'answer': {'output': 'values'}}, 'their outputs differ, probabilities and values'),
        ({'answer': {'output': 'classes', 'dense': True}}, 'their answers differ, one answer a sample and maps'),
        ({'normalisation': {'mean': [293.0], 'std': [3.0]}}, 'trained in other units, as their normalisation says'),
        ({'normalisation': {'mean': [0.2], 'std': [0.03]}}, 'trained in other units'),
        ({'reading': {'resize': [8]}}, 'their reading differ'),
        ({'columns': ['x']}, None),  # of the first nothing is known
        ({'normalisation': None, 'classes': None}, None),
        ({'normalisation': {'mean': [20.5], 'std': [3.3]}}, None),
    ],
)
def test_networks_that_do_not_go_together_are_refused_by_name(other, text):
    first, second = nets(lambda: EncoderNet1d(4, [1, 1], out_length=2), 2)
    ours = {**FACTS, 'reading': {'order': 1}}
    members = [Answer(first, ours), Answer(second, {**ours, **other})]
    if text is None:
        assert len(Ensemble(members).members) == 2
        return
    with pytest.raises(ValueError, match=f'^runs/a and runs/b cannot be averaged: .*{text}'):
        Ensemble(members, ['runs/a', 'runs/b'])


def test_networks_of_other_lengths_are_refused_before_anything_is_said():
    several = Ensemble(
        [Answer(EncoderNet1d(4, [1, 1], out_length=n), {'answer': {'output': 'values'}}) for n in (2, 3)]
    )
    with pytest.raises(ValueError, match=r'network 1 gives \(2,\) a sample, network 2 \(3,\): they have no mean'):
        several.predict(torch.zeros(1, 1, 20))
    with pytest.raises(ValueError, match='at least one Answer'):
        Ensemble([])


# Runs, and the command.


def trained(folder, name, seed, **more):
    x = RNG.normal(2, 3, size=(24, 1, 24)).astype('f4')
    y = {'Segmentation': (x[:, 0] > 2).astype(int), 'Regression': x.mean(2), 'MultiLabel': (x[:, 0, :2] > 2) + 0}
    np.save(folder / 'x.npy', x)
    np.save(folder / 'y.npy', y[name])
    family, width = ('UNet1d', 'out_planes') if name == 'Segmentation' else ('EncoderNet1d', 'out_length')
    outputs = 1 if name == 'Regression' else 2
    arguments = {'channel': 2, 'layers': [1, 1], 'in_planes': 1, width: outputs, **more.get('network', {})}
    network = {'name': family, 'arguments': arguments}
    data = {'inputs': str(folder / 'x.npy'), 'targets': str(folder / 'y.npy'), 'batch_size': 8}
    patch = {'patch': [16]} if name == 'Segmentation' else {}
    recipe = {
        'seed_everything': seed,
        'model': {'class_path': name, 'init_args': {'network': network, **more.get('model', {})}},
        'data': {'class_path': 'ArrayData', 'init_args': {**data, **patch, **more.get('data', {})}},
        'trainer': {'max_epochs': 1, 'accelerator': 'cpu', 'enable_progress_bar': False},
    }
    path = folder / f'recipe{seed}.yaml'
    path.write_text(yaml.safe_dump(recipe))
    run = folder / f'run{seed}'
    assert main(['fit', '--config', str(path), '--trainer.default_root_dir', str(run)]) == 0
    return run


def runs_of(folder, name, **more):
    return [trained(folder, name, seed, **more) for seed in (0, 1)]


pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning')


def test_maps_of_averaged_runs_and_their_spread(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runs = runs_of(tmp_path, 'Segmentation', model={'ema': 0.5}, network={'deep_supervision': 2, 'layers': [1, 1, 1]})
    x = np.load('x.npy')[:3]
    np.save('new.npy', x)
    words = ['--data.predict', 'new.npy', '--data.mirror', '[0]', '--data.blend', 'gaussian', '--output', 'p.h5']
    assert main(['predict', '--config', 'run0', 'run1', '--spread', *words]) == 0
    shares = []
    for run in runs:
        net = mdnc.checkpoints.load(run)
        told = {**net.origin.data, 'mirror': [0], 'blend': 'gaussian', 'overlap': 0.5}
        told['answer'] = {**told['answer'], 'output': 'probabilities'}
        shares.append(Answer(net, told).predict(x))
    mean = np.mean(shares, 0)
    with h5py.File('p.h5') as file:
        assert np.array_equal(file['prediction'], mean.argmax(1))
    with h5py.File('p_spread.h5') as file:
        spread = file['prediction'][:]
    due = -(mean * np.log(mean)).sum(1)
    np.testing.assert_allclose(spread[:, 0], due, rtol=1e-4)
    own = -np.mean([(each * np.log(each)).sum(1) for each in shares], 0)
    np.testing.assert_allclose(spread[:, 1], due - own, atol=1e-5)
    # In Python, from the same runs; and the checkpoints themselves, of one run or of several.
    several = mdnc.load(runs)
    assert len(several.networks) == 2
    plain = [mdnc.load(run).probabilities(x) for run in runs]
    np.testing.assert_allclose(several.probabilities(x), np.mean(plain, 0), atol=1e-6)
    several.write('new.npy', 'q.h5', spread=True)
    with h5py.File('q.h5') as file, h5py.File('q_spread.h5') as beside:
        assert np.array_equal(file['prediction'], several(x))
        np.testing.assert_allclose(beside['prediction'], several.spread(x), atol=1e-6)
    best = [str(run / 'checkpoints/best.ckpt') for run in runs]
    new = ['--data.predict', 'new.npy']
    assert main(['predict', '--config', *best, *new, '--output', 'r.h5']) == 0
    assert main(['predict', '--config', 'run0', '--ckpt_path', *best, *new, '--output', 's.h5']) == 0
    with h5py.File('r.h5') as one, h5py.File('s.h5') as other, h5py.File('q.h5') as file:
        assert np.array_equal(one['prediction'], file['prediction'])
        assert np.array_equal(other['prediction'], file['prediction'])
    assert not list(tmp_path.glob('.*part*'))
    with pytest.raises(ValueError, match='these are several: save each by itself'):
        several.save('both.ckpt')
    assert main(['export', 'run0', 'run1', '--output', 'both.onnx']) == 2


@pytest.mark.parametrize('name', ['Regression', 'MultiLabel'])
def test_tables_of_averaged_runs_and_their_spread(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = runs_of(tmp_path, name)
    x = np.load('x.npy')[:4]
    np.save('new.npy', x)
    words = ['--data.predict', 'new.npy', '--output', 'p.csv']
    assert main(['predict', '--config', 'run0', 'run1', '--spread', *words]) == 0
    each = np.stack([mdnc.load(run)(x) for run in runs])
    with open('p.csv') as file:
        rows = list(csv.DictReader(file))
    names = {
        'Regression': ['value', 'spread value'],
        'MultiLabel': ['0', '1', 'entropy 0', 'entropy 1', 'disagreement 0', 'disagreement 1'],
    }
    assert list(rows[0]) == ['path', *names[name]]
    found = np.array([[float(row[column]) for column in names[name]] for row in rows])
    outputs = each.shape[2]
    np.testing.assert_allclose(found[:, :outputs], each.mean(0), rtol=1e-5)
    several = mdnc.load(runs)
    np.testing.assert_allclose(found[:, outputs:], several.spread(x), rtol=1e-4, atol=1e-7)
    if name == 'Regression':
        np.testing.assert_allclose(found[:, 1:], each.std(0), rtol=1e-4)
    calls = []
    for number, net in enumerate(several.networks):
        net.register_forward_hook(lambda *_, number=number: calls.append(number))
    written = several.write('new.npy', 'q.csv', spread=True)
    assert len(written.read_text().splitlines()) == 5
    assert calls == [*range(len(several.networks))], 'answers and their spread are of one run of each network'


def test_runs_of_other_folds_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for fold in (0, 1):
        trained(tmp_path, 'Regression', fold, data={'split': {'folds': 3, 'fold': fold}})
    with pytest.warns(UserWarning, match='run1 divided its samples otherwise: it may have been trained on'):
        assert main(['predict', '--config', 'run0', 'run1', '--output', 'p.csv']) == 0


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        (['predict', '--config', 'run0', 'nowhere'], '--config nowhere: no file, run folder or recipe has this name'),
        (['predict', '--config', 'run0', 'run1', '--ckpt_path', 'run0/checkpoints/best.ckpt'], 'without --ckpt_path'),
        (['predict', '--config', 'run0', '--spread'], '--spread is how far networks are apart: name several runs'),
        (
            ['predict', '--config', 'run0', '--ckpt_path', 'run0/checkpoints/best.ckpt', 'no.ckpt'],
            'no checkpoint no.ckpt',
        ),
        (['fit', '--config', 'run0', 'run1'], 'only mdnc predict averages these'),
        (['test', '--config', 'run0', 'run1'], 'only mdnc predict averages these'),
        (['predict', '--config', 'run0', '--config', 'run1'], 'or let mdnc predict average them: --config'),
        (['predict', '--config', 'run0', 'other'], 'run0.* and .*other.* cannot be averaged: their classes differ'),
        (['predict', '--config', 'run0', 'run1', '--spread', '--format', 'png', '--output', 'p'], 'choose tiff'),
    ],
)
def test_wrong_requests(words, text, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob('*'))
    assert main([*words]) != 0
    assert re.search(text, capsys.readouterr().err)
    assert sorted(folder.rglob('*')) == before


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp('runs')
    runs_of(place, 'Segmentation', data={'classes': ['a', 'b']})
    (place / 'more').mkdir()
    trained(place / 'more', 'Segmentation', 2, data={'classes': ['low', 'high']}).rename(place / 'other')
    return place
