"""Plans: they fit, build, answer their sizes, say why, and give way to what is given."""

import functools
import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from sklearn.datasets import load_wine

from mdnc.cli.recipe import keep_plan
from mdnc.modules._standardization import normalised_by
from mdnc.planning import Budget, BudgetError, Fingerprint, Target, plan, read_fingerprint
from mdnc.planning.planner import planned
from mdnc.training import ArrayData, DataError
from mdnc.training.tasks.network import build_network

GIB = 2**30


def _classes(count, samples):
    return Target('classes', count, counts=[samples // count] * count)


MADE = {
    'gun': (Fingerprint(1, 50, 1, (150,), target=_classes(2, 50)), 8.0),
    'power': (Fingerprint(1, 67, 1, (24,), target=_classes(2, 67)), 0.5),
    'long': (Fingerprint(1, 1000, 1, (2_000_000,), target=_classes(2, 1000)), 0.5),
    'sleep': (Fingerprint(1, 200_000, 200, (3000,), target=_classes(1000, 200_000)), 16.0),
    'digits': (Fingerprint(2, 1797, 1, (8, 8), target=_classes(10, 1797)), 2.0),
    'photos': (Fingerprint(2, 50_000, 3, (224, 224), target=_classes(1000, 50_000)), 24.0),
    'cells': (Fingerprint(2, 30, 1, (696, 520), target=Target('class map', 3, counts=[9000, 999, 1])), 8.0),
    'slices': (Fingerprint(3, 100, 1, (19, 256, 216), target=Target('class map', 4)), 8.0),
    'brain': (
        Fingerprint(3, 20, 4, (138, 170, 138), (130, 150, 120), (155, 190, 140), target=Target('class map', 4)),
        4.0,
    ),
    'noise': (Fingerprint(3, 200, 1, (64, 64, 64)), 1.0),
    'age': (Fingerprint(3, 600, 1, (91, 109, 91), target=Target('numbers', 1)), 80.0),
}


@functools.cache
def _plan(name):
    data, gibibytes = MADE[name]
    return plan(data, int(gibibytes * GIB))


@pytest.mark.parametrize('name', MADE)
def test_a_plan_builds_answers_its_sizes_and_fits(name):
    data, gibibytes = MADE[name]
    made = _plan(name)
    with torch.device('meta'):
        network = build_network(made.recipe['model']['init_args']['network'])
    window = tuple(made.forecast['window'])
    dense = made.forecast['job']['task'] in ('Segmentation', 'Reconstruction')
    assert made.forecast['bytes'] <= gibibytes * GIB
    assert (network.output_size(window) == window) == dense
    assert made.words['model.network.arguments.in_planes'] == data.channels
    assert yaml.safe_load(made.to_yaml()) == json.loads(json.dumps(made.recipe))


@pytest.mark.parametrize('name', MADE)
def test_a_network_has_the_strides_that_were_planned(name):
    made = _plan(name)
    with torch.device('meta'):
        network = build_network(made.recipe['model']['init_args']['network'])
    window = tuple(made.forecast['window'])
    sizes = network.stage_sizes(window)
    smallest = tuple(min(size[axis] for size in sizes) for axis in range(len(window)))
    assert all(
        f'axis {axis} ends with {length} value' in _because(made, "layers") for axis, length in enumerate(smallest)
    )


def _because(made, argument):
    return next(choice.because for choice in made.choices if choice.word == f'model.network.arguments.{argument}')


@pytest.mark.parametrize('name', ['long', 'sleep', 'photos', 'brain', 'slices'])
def test_a_budget_is_used_where_the_data_are_large_enough(name):
    assert _plan(name).forecast['share'] >= 0.85


def test_the_same_data_give_the_same_plan_to_the_letter():
    first, second = _plan('cells'), plan(MADE['cells'][0], 8 * GIB)
    assert first.to_yaml() == second.to_yaml() and first.to_dict() == second.to_dict()


def test_given_words_stay_and_the_rest_is_planned_around_them():
    words = {'data': {'init_args': {'batch_size': 3, 'patch': [96, 80]}}, 'model.network.arguments.channel': 12}
    made = plan(MADE['cells'][0], 4 * GIB, words)
    assert made.words['data.batch_size'] == 3 and made.words['data.patch'] == [96, 80]
    assert made.words['model.network.arguments.channel'] == 12 and made.forecast['window'] == [96, 80]


def test_a_given_split_says_how_many_samples_train(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / 'parts.npz', train=np.arange(20), test=np.arange(20, 400))
    split = {'given': str(tmp_path / 'parts.npz')}
    made = plan(
        ArrayData(rng.normal(size=(400, 1, 64)).astype('f4'), np.arange(400) % 2, split=split), 2 * GIB, dry=True
    )
    batches = -(-20 // made.words['data.batch_size'])
    assert f'{batches} steps an epoch' in made.to_yaml()


def test_a_preset_gets_only_its_planes_and_a_level():
    made = plan(MADE['photos'][0], 24 * GIB, {'model.network.name': 'resnet18'})
    assert made.words['model.network.arguments.out_length'] == 1000
    assert 'model.network.arguments.strides' not in made.words


def test_a_rare_class_weighs_more_but_not_without_end():
    target = Target('classes', 3, counts=[5000, 4999, 1])
    made = plan(Fingerprint(1, 10_000, 1, (300,), target=target), 2 * GIB)
    common, _, rare = made.words['model.class_weights']
    assert rare == 10 and common < 1


def test_a_budget_too_small_is_refused_with_the_least_that_works():
    with pytest.raises(BudgetError, match=r'too small: the least that works is .* MiB'):
        plan(MADE['brain'][0], 2**20)


def test_a_single_class_and_a_task_that_does_not_suit_are_refused():
    one = Target('classes', 2, counts=[40, 0])
    with pytest.raises(DataError, match='single class'):
        plan(Fingerprint(1, 40, 1, (64,), target=one), GIB)
    with pytest.raises(ValueError, match='does not suit'):
        plan(MADE['age'][0], GIB, {'model.class_path': 'Segmentation'})


def test_samples_of_several_sizes_are_resized_padded_or_cut():
    target = _classes(2, 100)
    images = plan(Fingerprint(2, 100, 3, (60, 80), (40, 50), (90, 99), target=target), GIB)
    signals = plan(Fingerprint(1, 100, 3, (200,), (100,), (300,), target=target), GIB)
    assert images.words['data.resize'] == [60, 80]
    assert signals.forecast['window'] == [300] and 'data.crop' not in signals.words


def test_hours_that_are_short_shrink_the_run():
    usual = _plan('digits')
    short = planned(MADE['digits'][0], Budget(memory=GIB), {}, macs=usual.forecast['macs'] / 10)
    assert short.forecast['macs'] <= usual.forecast['macs'] / 10


def test_what_is_saved_is_read_again(tmp_path):
    signals = np.random.default_rng(0).normal(size=(40, 1, 64)).astype(np.float32)
    made = plan(ArrayData(signals, np.arange(40) % 2), GIB)
    files = made.save(tmp_path / 'plan.yaml')
    assert [file.name for file in files] == ['plan.yaml', 'plan.json', 'data.json']
    assert Fingerprint.from_dict(json.loads(files[2].read_text())) == made.fingerprint
    other = plan(MADE['gun'][0], GIB, like=files[0])
    kept = {word for word in made.words if word.startswith('model.network.arguments.')} - {
        'model.network.arguments.in_planes',
        'model.network.arguments.out_length',
    }
    assert all(other.words[word] == made.words[word] for word in kept)


@pytest.mark.parametrize('wrong', [{'memory': 0}, {'hours': -1}, {'precision': 'half'}, {'reserve': 2**60}])
def test_a_budget_refuses_what_is_none(wrong):
    with pytest.raises(ValueError, match='Budget'):
        Budget(**{'memory': GIB, **wrong})


def test_a_run_keeps_the_plan_that_stands_beside_its_recipe(tmp_path):
    _plan('gun').save(tmp_path / 'mine.yaml')
    (tmp_path / 'other.json').write_text('[1]')
    run = tmp_path / 'run'
    run.mkdir()
    keep_plan(tmp_path / 'other.yaml', run)
    assert not (run / 'plan.json').exists()
    keep_plan(tmp_path / 'mine.yaml', run)
    assert json.loads((run / 'plan.json').read_text())['fingerprint']['samples'] == 50


class Own(torch.nn.Module):
    """A network of one's own that a planner tells patch, strides and widths."""

    def __init__(self, patch, strides, widths, in_planes, out_length):
        super().__init__()
        self.told = (patch, strides, widths)
        self.first = torch.nn.Conv1d(in_planes, widths[0], 3, padding=1)
        self.last = torch.nn.Linear(widths[0], out_length)

    def forward(self, x):
        return self.last(self.first(x).mean(-1))


def test_a_network_of_ones_own_gets_patch_strides_and_widths(monkeypatch):
    module = types.ModuleType('own_network')
    module.Own = Own
    monkeypatch.setitem(sys.modules, 'own_network', module)
    made = plan(MADE['gun'][0], GIB, {'model.network.name': 'own_network.Own'})
    assert made.words['model.network.arguments.patch'] == [150]
    assert made.words['model.network.arguments.strides'] == [[1], [1], [2], [2]]
    assert made.words['model.network.arguments.widths'] == [32, 64, 128, 256]


@pytest.mark.parametrize(
    ('decades', 'word', 'text'),
    [
        (3, 'sample', 'samples of channel 1 differ in amplitude by orders of magnitude'),
        (1, 'set', 'samples varies by 0.'),
    ],
)
def test_the_normalisation_follows_the_amplitudes_of_samples(decades, word, text):
    x = np.random.default_rng(0).normal(size=(40, 2, 64)).astype('f4')
    x[:, 1] *= np.logspace(-decades, decades, 40, dtype='f4')[:, None]
    data = ArrayData(x, np.arange(40) % 2, split={'val': 0, 'test': 0})
    made = plan(data, GIB, dry=True)
    [choice] = [each for each in made.choices if each.word == 'data.normalise']
    figure = np.log10(x.astype('f8').std(2)).std(0)[1]
    assert (choice.value, text in choice.because, f'{figure:.2g}' in choice.because) == (word, True, True)
    data.setup()
    assert normalised_by(data.facts['normalisation']) == word, 'a run chooses the same'


def test_where_quantities_may_depend_on_amplitudes_a_run_decides():
    x = (
        np.random.default_rng(0).normal(size=(40, 1, 64)).astype('f4')
        * np.logspace(-3, 3, 40, dtype='f4')[:, None, None]
    )
    made = plan(ArrayData(x, x.std(axis=2), split={'val': 0, 'test': 0}), GIB, dry=True)
    [choice] = [each for each in made.choices if each.word == 'data.normalise']
    assert choice.value == 'auto' and 'whether the targets depend on that, a run sees' in choice.because


def test_rows_of_a_table_are_pointed_out_and_get_no_noise():
    wine = load_wine()
    data = read_fingerprint(ArrayData(wine.data[:, None], wine.target).pairs())
    made, other = (plan(each, GIB) for each in (data, replace(data, faults=[])))
    assert [note for note in made.notes if 'half of the positions of channel 0' in note]
    words = [{choice.word for choice in each.choices} for each in (made, other)]
    assert words[1] - words[0] == {'data.augmentation.noise'} and 'noise' not in str(made.recipe)
