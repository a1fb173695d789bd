"""Every sample once an epoch, weighted as one of all, whatever the processes, batches and steps."""

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.points import Points, train
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from mdnc.training import sampler
from mdnc.training.sample import SampleError
from mdnc.training.sampler import Batches, EvenBatches, WorkerError, even_starts, make_loader


def _per_rank(monkeypatch, make, world):
    lists = []
    for rank in range(world):
        monkeypatch.setattr(sampler, '_process', lambda rank=rank: (rank, world))
        lists.append(list(make()))
    return lists


@given(
    samples=st.integers(1, 60),
    batch=st.integers(1, 17),
    world=st.integers(1, 5),
    accumulate=st.integers(1, 4),
    limit=st.integers(1, 60) | st.none(),
)
def test_each_sample_counts_once_and_each_step_is_a_mean(samples, batch, world, accumulate, limit):
    def make():
        batches = Batches(samples, batch, shuffle=True, seed=7)
        batches.accumulate = accumulate
        batches.limit = None if limit is None else min(limit, len(batches))
        return list(batches)[: batches.limit]

    with pytest.MonkeyPatch.context() as patch:
        lists = _per_rank(patch, make, world)
    assert len({len(keys) for keys in lists}) == 1, 'a process with fewer batches would leave the others waiting'
    real = [key.index for keys in lists for batch_ in keys for key in batch_ if key.weight > 0]
    sizes = [sum(key.weight > 0 for keys in step for key in keys) for step in zip(*lists, strict=True)]
    assert len(sizes) == min(-(-samples // batch), limit or samples)
    assert max(sizes) <= batch and max(sizes) - min(sizes) <= 1, 'batch norm suffers from a batch of a few'
    assert len(real) == len(set(real)) == sum(sizes)
    for start in range(0, len(lists[0]), accumulate):
        weights = [key.weight for keys in lists for batch_ in keys[start : start + accumulate] for key in batch_]
        # The trainer divides by `accumulate`, the processes' gradients are averaged.
        assert sum(weights) / (accumulate * world) == pytest.approx(1)
        assert len({weight for weight in weights if weight}) == 1


@pytest.mark.parametrize(
    ('shuffle', 'sizes'), [(True, [13, 13, 12, 12]), (False, [16, 16, 16, 2])], ids=['training', 'validation']
)
def test_training_has_batches_of_even_size(shuffle, sizes):
    loader = make_loader(Points(50, 0), batch_size=16, shuffle=shuffle)
    assert [len(batch['index']) for batch in loader] == sizes
    assert len(loader) == 4


def test_even_batches_of_torch():
    data = TensorDataset(torch.arange(50))
    loader = DataLoader(data, batch_sampler=EvenBatches(RandomSampler(data), 16, drop_last=False))
    read = [batch.tolist() for [batch] in loader]
    assert [len(batch) for batch in read] == [13, 13, 12, 12]
    assert sorted(index for batch in read for index in batch) == list(range(50))
    assert even_starts(7, 16) == [0, 7]


@pytest.mark.parametrize('workers', [0, 1])
def test_an_epoch_of_an_older_version_ends_as_it_began(workers):
    def indices(loader):
        return [batch['index'].tolist() for batch in loader]

    loader = make_loader(Points(50, 0), batch_size=16, shuffle=True, seed=3, workers=workers)
    order = [index for batch in indices(loader) for index in batch]
    loader.load_state_dict({'epoch': 0, 'seen': 2})  # 32 samples were seen, in batches of 16
    iterator = iter(loader)
    first = next(iterator)['index'].tolist()
    assert first == order[32:48]
    state = loader.state_dict()
    iterator.close()
    again = make_loader(Points(50, 0), batch_size=16, shuffle=True, seed=3, workers=workers)
    again.load_state_dict(state)  # stopped once more
    assert indices(again) == [order[48:]]
    again.batch_sampler.set_epoch(1)
    assert [len(batch) for batch in indices(again)] == [13, 13, 12, 12]


@pytest.mark.parametrize('world', [1, 2, 3])
def test_batches_do_not_depend_on_the_number_of_processes(monkeypatch, world):
    lists = _per_rank(monkeypatch, lambda: Batches(23, 5, shuffle=True, seed=1), world)
    merged = [sorted(k.index for keys in step for k in keys if k.weight) for step in zip(*lists, strict=True)]
    monkeypatch.setattr(sampler, '_process', lambda: (0, 1))
    assert merged == [sorted(key.index for key in keys) for keys in Batches(23, 5, shuffle=True, seed=1)]


def test_order_and_seeds_follow_from_seed_and_epoch():
    def keys(seed, epoch):
        batches = Batches(40, 8, shuffle=True, seed=seed)
        batches.set_epoch(epoch)
        return list(batches)

    assert keys(1, 2) == keys(1, 2)
    assert keys(1, 2) != keys(2, 1) != keys(1, 1)
    [(first, *_), *_] = keys(1, 2)
    assert first.seed == (1, 2, first.index)


def test_a_loader_goes_on_where_it_was_also_with_workers_that_read_ahead():
    def batches(loader):
        return [(batch['index'].tolist(), batch['input'].tolist()) for batch in loader]

    options = {'batch_size': 4, 'shuffle': True, 'workers': 2}
    whole = batches(make_loader(Points(30, 0), **options))
    loader = make_loader(Points(30, 0), **options)
    iterator = iter(loader)
    seen = [next(iterator) for _ in range(3)]
    state = loader.state_dict()
    iterator.close()
    rest = make_loader(Points(30, 0), **options)
    rest.load_state_dict(state)
    assert [batch['index'].tolist() for batch in seen] == [index for index, _ in whole[:3]]
    assert batches(rest) == whole[3:]
    assert len(batches(rest)) == len(rest), 'the next epoch is whole again'


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize(
    ('fault', 'text'),
    [
        ('unreadable', r'sample 5 \(points.npy\[5\]\): OSError: truncated file$'),
        ('shape', r'sample 5 \(points.npy\[5\]\): its shape is \(2,\), but the data set has \(3,\)$'),
        ('nan', r'sample 5 \(points.npy\[5\]\): its input contains NaN or Inf'),
    ],
)
def test_a_bad_sample_is_named_in_one_sentence(workers, fault, text):
    loader = make_loader(Points(9, 0, {5: fault}), batch_size=4, workers=workers)
    with pytest.raises(SampleError, match=text):
        list(loader)


def test_a_sample_with_nan_can_be_left_out():
    [batch] = make_loader(Points(4, 0, {2: 'nan'}), batch_size=4, nonfinite='skip')
    assert batch['weight'].tolist() == [0.25, 0.25, 0, 0.25]
    assert batch['input'].isfinite().all()


def test_a_dead_worker_ends_the_loading():
    with pytest.raises(WorkerError, match=r'a worker process died .* before batch [01] of epoch 0 was read'):
        list(make_loader(Points(9, 0, {5: 'deadly'}), batch_size=4, workers=1))


class Broken:
    """Stands for a loader whose worker's connection breaks."""

    def __init__(self, error, workers):
        self.error, self.num_workers = error, workers

    def __iter__(self):
        raise self.error


@pytest.mark.parametrize('error', [ConnectionResetError(104, 'reset'), ConnectionRefusedError(), EOFError()])
def test_a_worker_is_dead_whose_connection_breaks_before_the_signal(error, monkeypatch):
    def signalled(seconds):
        raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed.')

    loader = make_loader(Points(9, 0), batch_size=4)
    loader._loader = Broken(error, 1)
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # no signal comes
    with pytest.raises(type(error)):
        list(loader)
    monkeypatch.setattr('time.sleep', signalled)
    with pytest.raises(WorkerError, match=r'a worker process died .* before batch 0 .* killed by signal'):
        list(loader)
    loader._loader = Broken(error, 0)
    with pytest.raises(type(error)):
        list(loader)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *(('batch_size', value) for value in (0, -1, 2.0, True, '2', None, float('nan'))),
        *(('workers', value) for value in (-1, 1.5, True, None)),
        *(('seed', value) for value in (-1, 0.5, None)),
        *(('shuffle', value) for value in (1, 'no', None)),
        *(('nonfinite', value) for value in ('Stop', '', None)),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=f'^make_loader: {name}='):
        make_loader(Points(4, 0), **{'batch_size': 2, name: value})


def test_a_sample_without_an_input_is_named():
    points = Points(4, 0)
    points.item = lambda index, rng: {'image': torch.zeros(3)}
    with pytest.raises(SampleError, match=r'sample 0 \(points\.npy\[0\]\): it has no input, only image'):
        list(make_loader(points, batch_size=np.int64(2)))


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match='no sample'):
        make_loader(Points(0, 0), batch_size=1)


def test_the_batch_of_a_dead_worker_is_named_wherever_its_death_is_told(tmp_path):
    class Late(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, number):
            if number == 2:  # torch raises at any place of the program
                raise RuntimeError('DataLoader worker (pid 17) is killed by signal: Killed.')

    text = r'a worker process died .* before batch 3 of epoch 0 was read: DataLoader worker'
    with pytest.raises(RuntimeError, match=text):
        train(tmp_path, callbacks=[Late()])
