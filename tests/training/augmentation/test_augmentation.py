"""Augmentation as a recipe asks for it: seeds, maps, chances, mixing, and what is refused."""

import lightning as L
import numpy as np
import pytest
import torch

from mdnc.training import ArrayData, Augmentation, Classification, DataError, Keeper, Segmentation, make_trainer
from mdnc.training.augmentation.mixing import mixed_losses
from mdnc.training.augmentation.random_numbers import RandomNumbers
from mdnc.training.run import start_point

RNG = np.random.default_rng(0)
SIZES = [(32,), (16, 12), (10, 9, 8)]
MOVES = {'scaling': [0.7, 1.4], 'shift': 0.2, 'elastic': 0.05, 'time_warp': 0.2}
VALUES = {
    'noise': [0.0, 0.3],
    'gain': 0.2,
    'blur': [0.5, 1.0],
    'brightness': [0.75, 1.25],
    'contrast': [0.75, 1.25],
    'gamma': [0.7, 1.5],
    'gamma_inverted': [0.7, 1.5],
    'low_resolution': [0.5, 1.0],
    'magnitude_warp': 0.2,
    'mask': 0.4,
}


def _batch(size, count=6, channels=2, **more):
    x = torch.from_numpy(RNG.normal(size=(count, channels, *size)).astype('f4'))
    return {'input': x, 'target': torch.arange(count) % 3, 'seed': [100 + each for each in range(count)], **more}


def _row(batch, row):
    part = {name: value[row : row + 1] for name, value in batch.items()}
    return part


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
@pytest.mark.parametrize('name', [*MOVES, *VALUES, 'rotation', 'flip'])
def test_every_word_changes_samples_of_every_order_and_repeats(size, name):
    if name == 'rotation' and len(size) == 1:
        return
    strength = {**MOVES, **VALUES, 'rotation': 30.0, 'flip': [0]}[name]
    augment, batch = Augmentation(**{name: strength}), _batch(size)
    kept = batch['input'].clone()
    found, again = augment(batch)['input'], augment(batch)['input']
    assert torch.equal(found, again) and torch.equal(batch['input'], kept) and found.isfinite().all()
    assert not torch.equal(found, kept)
    assert not torch.equal(augment({**batch, 'seed': [7] * 6})['input'], found)


@pytest.mark.parametrize('preset', ['signal', 'image', 'volume'])
@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_a_sample_draws_from_its_own_seed_whatever_else_is_in_the_batch(size, preset):
    augment, batch = Augmentation(preset=preset), _batch(size, count=12)
    whole = augment(batch)['input']
    alone = torch.cat([augment(_row(batch, row))['input'] for row in range(12)])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-5)
    assert not torch.equal(whole, batch['input'])


def test_without_seeds_nothing_is_done():
    batch = _batch((8,))
    del batch['seed']
    assert Augmentation(preset='signal')(batch) is batch


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
@pytest.mark.parametrize('axis', [True, False], ids=['channel', 'lone'])
def test_maps_follow_their_input(size, axis):
    words = {**MOVES, 'flip': [0], 'rotation': 30.0 if len(size) > 1 else 0.0}
    x = torch.from_numpy(RNG.normal(size=(8, 1, *size)).astype('f4')).cumsum(-1)
    quantity = 2 * x + 1
    found = Augmentation(**words)({'input': x, 'target': quantity if axis else quantity[:, 0], 'seed': [*range(8)]})
    target = found['target'] if axis else found['target'][:, None]
    torch.testing.assert_close(target, 2 * found['input'] + 1, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_class_numbers_stay_class_numbers_and_go_where_their_values_go(size):
    target = torch.zeros(8, *size, dtype=torch.int64)
    target[(slice(None), *(slice(2, length // 2) for length in size))] = 7
    target[(slice(None), *(slice(length // 2, length - 3) for length in size))] = -100
    x = target[:, None].float()
    found = Augmentation(**MOVES, flip=[0])({'input': x, 'target': target, 'seed': [*range(8)]})
    assert found['target'].dtype == torch.int64 and set(found['target'].unique().tolist()) <= {0, 7, -100}
    inside = (found['input'][:, 0] - found['target']).abs() < 1e-3  # linear between two, nearest on one of them
    assert inside.float().mean() > 0.6 and not torch.equal(found['target'], target)


def test_what_is_not_known_spreads_to_what_is_made_of_it():
    known = torch.ones(4, 1, 40, dtype=torch.bool)
    known[:, :, 15:25] = False
    x = torch.ones(4, 1, 40)
    target = torch.where(known, x, 0)
    found = Augmentation(**MOVES)({'input': x, 'target': target, 'known': known, 'seed': [*range(4)]})
    assert 0 < found['known'].float().mean() < 1
    torch.testing.assert_close(found['target'][found['known']], torch.ones(int(found['known'].sum())))


def test_vectors_and_numbers_of_a_target_stay():
    batch = _batch((20,), target=torch.arange(18.0).view(6, 3))
    found = Augmentation(flip=[0], **MOVES)(batch)
    assert torch.equal(found['target'], batch['target'])


def test_what_is_to_be_given_back_is_the_sample_moved_and_without_noise():
    x = torch.from_numpy(RNG.normal(size=(5, 1, 30)).astype('f4'))
    seed = [*range(5)]
    moved = Augmentation(flip=[0])({'input': x, 'seed': seed})
    assert 'target' not in moved
    noisy = Augmentation(flip=[0], noise=0.5)({'input': x, 'seed': seed})
    assert torch.equal(noisy['target'], moved['input'])
    assert (noisy['input'] - noisy['target']).std() == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize('word', ['noise', 'mask', 'blur'])
def test_a_word_is_used_as_often_as_its_chance_says(word):
    batch = _batch((16,), count=400)
    changed = Augmentation(**{word: VALUES[word]}, chance={word: 0.25})(batch)['input'] != batch['input']
    assert changed.flatten(1).any(1).float().mean() == pytest.approx(0.25, abs=0.07)


def test_channels_take_part_by_a_chance_of_their_own():
    batch = _batch((16,), count=300, channels=3)
    found = Augmentation(blur=1.0, channel_chance={'blur': 0.5})(batch)['input']
    share = (found != batch['input']).any(2).float()
    assert share.mean() == pytest.approx(0.5, abs=0.06)
    assert set(share.sum(1).tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_noise_is_in_units_of_the_data_or_of_the_sample():
    batch = {'input': torch.randn(4, 1, 5000, generator=torch.Generator().manual_seed(0)) * 100, 'seed': [*range(4)]}
    own = Augmentation(noise=2.0)(batch)['input'] - batch['input']
    relative = Augmentation(noise=2.0, units='sample')(batch)['input'] - batch['input']
    assert own.std() == pytest.approx(2, rel=0.05) and relative.std() == pytest.approx(200, rel=0.05)
    assert Augmentation(preset='volume').relative and not Augmentation().relative


def test_numbers_drawn_are_even_and_normal():
    chance = RandomNumbers([*range(2000)])
    even, normal = chance.even(5), chance.normal(5)
    assert even.min() >= 0 and even.max() < 1 and even.mean() == pytest.approx(0.5, abs=0.01)
    assert normal.mean() == pytest.approx(0, abs=0.03) and normal.std() == pytest.approx(1, abs=0.03)
    factor = chance.factor(5, low=0.5, high=3.0)
    assert (factor < 1).float().mean() == pytest.approx(0.5, abs=0.03) and 0.5 <= factor.min() < factor.max() < 3


# ---- Presets ----


def test_a_word_beside_a_preset_outweighs_it():
    augment = Augmentation(preset='volume', rotation=0.0, gamma=[], noise=2.0, chance={'blur': 1.0})
    assert not augment.strength('rotation') and not augment.strength('gamma')
    assert augment.strength('noise') == 2.0 and augment.strength('scaling') == [1 / 1.4, 1 / 0.7]
    assert augment.probability('blur') == 1.0 and augment.probability('scaling') == 0.2
    assert augment.probability('flip') == 0.5 and augment.channel_probability('low_resolution') == 0.5


# ---- Mixing ----


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_mixup_averages_inputs_and_the_loss_follows(size):
    batch = _batch(size)
    found = Augmentation(mixup=1.0)(batch)
    share = found['mixed_share'].view(-1, *(1,) * (len(size) + 1))
    assert ((share >= 0.5) & (share < 1)).all()
    for row in range(6):
        rest = (found['input'][row] - share[row] * batch['input'][row]) / (1 - share[row])
        other = [place for place in range(6) if torch.allclose(rest, batch['input'][place], atol=1e-3)]
        assert len(other) == 1 and other != [row] and found['mixed_target'][row] == batch['target'][other[0]]
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    own, others = (torch.nn.functional.one_hot(found[name], 3) for name in ('target', 'mixed_target'))
    soft = found['mixed_share'][:, None] * own + (1 - found['mixed_share'][:, None]) * others
    due = -(soft * logits.log_softmax(1)).sum(1)

    def losses(output, batch):
        return torch.nn.functional.cross_entropy(output, batch['target'], reduction='none')

    torch.testing.assert_close(mixed_losses(losses, logits, found), due)


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_cutmix_says_what_share_is_left(size):
    x = torch.arange(6.0).view(6, 1, *(1,) * len(size)).expand(6, 1, *size).contiguous()
    found = Augmentation(cutmix=1.0)({'input': x, 'target': torch.arange(6), 'seed': [*range(6)]})
    for row in range(6):
        own = (found['input'][row] == row).float().mean()
        assert own == pytest.approx(float(found['mixed_share'][row]), abs=1e-6)
        assert set(found['input'][row].unique().tolist()) <= {row, int(found['mixed_target'][row])}


def test_cutmix_takes_maps_with_it():
    x = torch.from_numpy(RNG.normal(size=(6, 1, 12, 10)).astype('f4'))
    target = (x[:, 0] * 1000).long()
    found = Augmentation(cutmix=1.0)({'input': x, 'target': target, 'seed': [*range(6)]})
    assert 'mixed_share' not in found and not torch.equal(found['target'], target)
    assert torch.equal((found['input'][:, 0] * 1000).long(), found['target'])


def test_where_both_are_given_each_sample_gets_one_of_the_samples_themselves():
    x = torch.arange(40.0).view(40, 1, 1).expand(40, 1, 50).contiguous()
    found = Augmentation(mixup=1.0, cutmix=1.0)({'input': x, 'target': torch.arange(40), 'seed': [*range(40)]})
    kinds = [len(row.unique()) for row in found['input']]
    assert 5 < sum(kind == 2 for kind in kinds) < 35, 'cut'
    share = found['mixed_share'][:, None, None]
    due = share * x + (1 - share) * found['mixed_target'][:, None, None]
    torch.testing.assert_close(found['input'].mean(2), due.mean(2), atol=1e-3, rtol=1e-4)


def test_fillers_are_mixed_with_nobody():
    batch = _batch((8,), weight=torch.tensor([0.25, 0.25, 0, 0.25, 0.25, 0]))
    batch['input'][[2, 5]] = float('nan')
    found = Augmentation(mixup=1.0, cutmix=1.0)(batch)
    assert found['input'][[0, 1, 3, 4]].isfinite().all()
    alone = _batch((8,), count=1)
    assert torch.equal(Augmentation(mixup=1.0)(alone)['input'], alone['input'])


# ---- Batches of unequal sizes ----


def test_padding_is_not_moved_into_samples():
    x = torch.zeros(2, 1, 30)
    x[0], x[1, :, :12] = 5, 5
    batch = {'input': x, 'target': (x[:, 0] > 0).long(), 'lengths': torch.tensor([30, 12]), 'seed': [1, 2]}
    found = Augmentation(**MOVES, flip=[0])(batch)
    torch.testing.assert_close(found['input'], x)
    assert torch.equal(found['target'], batch['target'])
    labelled = Augmentation(noise=1.0)({**batch, 'target': torch.tensor([0, 1])})
    assert labelled['target'].tolist() == [0, 1]
    assert labelled['input'][1, 0, :12].std() > 0.5 and not labelled['input'][1, 0, 12:].any()
    clean = Augmentation(noise=1.0)({name: value for name, value in batch.items() if name != 'target'})
    assert torch.equal(clean['target'], x) and clean['input'].std() > x.std()
    with pytest.raises(ValueError, match='mixup and cutmix mix samples of one size'):
        Augmentation(mixup=0.2)(batch)


# ---- In a run ----


def _train(folder, target, task, **data):
    x = RNG.normal(size=(24, 1, 16)).astype('f4')
    source = ArrayData(x, target(x), batch_size=8, **data)
    trainer = make_trainer(folder, max_epochs=2, enable_progress_bar=False, logger=False)
    trainer.fit(task, source)
    return task


ENCODER = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_length': 2}}
UNET = {'name': 'UNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_planes': 2}}


def test_a_run_sees_augmented_samples_in_training_only(tmp_path):
    seen = {'train': [], 'val': []}

    class Watched(Classification):
        def training_step(self, batch, batch_idx):
            seen['train'].append(batch)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            seen['val'].append(batch)
            super().validation_step(batch, batch_idx)

    _train(
        tmp_path,
        lambda x: np.arange(24) % 2,
        Watched(ENCODER),
        split={'val': 0.3},
        augmentation={'gain': 0.5, 'mixup': 1.0},
    )
    assert all('mixed_share' in batch and 'seed' not in batch for batch in seen['train'])
    assert not any('mixed_share' in batch for batch in seen['val'])


def test_segmentation_trains_with_all_words(tmp_path):
    words = {**MOVES, **VALUES, 'flip': [0], 'mixup': 0.2, 'cutmix': 1.0}
    _train(tmp_path, lambda x: (x[:, 0] > 0).astype(int), Segmentation(UNET), augmentation=words)


class _Killed(Exception):
    pass


class _KillAt(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise _Killed


@pytest.mark.parametrize(
    'words', [{'preset': 'signal', 'flip': [0], 'elastic': 0.1, 'gamma': [0.7, 1.5]}, {'mixup': 0.5}]
)
def test_a_run_that_was_killed_goes_on_to_the_bit(tmp_path, words):
    x = RNG.normal(size=(24, 1, 16)).astype('f4')

    def fit(name, step=None, start=None):
        torch.manual_seed(0)
        source = ArrayData(x, (x[:, 0] > 0).astype(int), batch_size=5, augmentation=words, split={'val': 0.1})
        callbacks = [Keeper(every_minutes=0), *([_KillAt(step)] if step else [])]
        trainer = make_trainer(tmp_path / name, max_epochs=3, callbacks=callbacks, enable_progress_bar=False)
        task = Segmentation(UNET)
        trainer.fit(task, source, ckpt_path=start)
        return task.network.state_dict()

    whole = fit('whole')
    with pytest.raises(_Killed):
        fit('killed', step=6)
    rest = fit('killed', start=start_point(tmp_path / 'killed'))
    assert all(torch.equal(whole[key], rest[key]) for key in whole)


# ---- What is refused ----


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        ({'flip': [1]}, r'flip=\[1\] names an axis that samples of 1 axes do not have'),
        ({'rotation': 10.0}, r'rotation=10.0: samples of one axis cannot be turned'),
    ],
)
def test_words_that_samples_cannot_follow_are_refused_before_training(words, text):
    with pytest.raises(DataError, match=text):
        ArrayData(RNG.normal(size=(20, 1, 8)), augmentation=words).setup()


FACTORS = ('scaling', 'brightness', 'contrast', 'gamma', 'gamma_inverted')
EXTENTS = ('elastic', 'time_warp', 'magnitude_warp', 'mixup', 'cutmix')
WRONG_CHANCES = [0.5, {'blurr': 0.5}, {'blur': 1.5}, {'blur': -1}, {'blur': 'a'}]
INF = float('inf')


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *((name, value) for name in FACTORS for value in (1.0, [1], [2, 1], [0, 1], [-1, 1], ['a', 1], [1, INF], '1')),
        *(('low_resolution', value) for value in ([0.5, 1.1], 0.5, [0, 1])),
        *((name, value) for name in ('shift', 'mask') for value in (1, -0.1, [0.1], True, 'a')),
        *((name, value) for name in EXTENTS for value in (-1, float('nan'), [1], 'a')),
        *(('rotation', value) for value in (-1, [1, 2], [1, 2, -3], '90', True)),
        *((name, value) for name in ('noise', 'blur') for value in (-1, [1, 0], [1], [-1, 1], ['a', 'b'])),
        *(('preset', value) for value in ('volumes', 3, '')),
        *(('units', value) for value in ('std', 3)),
        *((name, value) for name in ('chance', 'channel_chance') for value in WRONG_CHANCES),
        ('channel_chance', {'flip': 0.5}),
    ],
    ids=str,
)
def test_words_out_of_range_are_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=rf'^Augmentation: {name}[=.]'):
        Augmentation(**{name: value})


def test_more_than_all_samples_cannot_be_mixed():
    with pytest.raises(ValueError, match='a sample gets mixup or cutmix'):
        Augmentation(mixup=1.0, cutmix=1.0, chance={'mixup': 0.8})


def test_a_preset_may_be_given_by_its_name_alone():
    data = ArrayData(np.zeros((20, 1, 8)), augmentation='signal')
    assert data.augmentation == Augmentation(preset='signal')
    with pytest.raises(TypeError, match=r"^ArrayData: augmentation='sound' must be of Augmentation, 'signal', 'image'"):
        ArrayData(np.zeros((20, 1, 8)), augmentation='sound')
