"""Averaged weights by one word; trainings that start from another run, hold parts, or go slower far from the head."""

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

import mdnc
from mdnc.training import ArrayData, Classification, Keeper, make_trainer
from mdnc.training.run import start_point
from mdnc.training.weight_averaging import Ema

# Lightning says so of each callback that is not there when a checkpoint is read.
pytestmark = pytest.mark.filterwarnings('ignore:Be aware that when using `ckpt_path`')
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 1, 16)).astype('f4')
Y = (X[:, 0, 0] > 0).astype(int)
NETWORK = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_length': 2}}


def _data():
    return ArrayData(X, Y, batch_size=8)


class _Watch(L.Callback):
    """Averages the weights by a plain loop, and stops where it is told to."""

    def __init__(self, decay=0.9, stop=None):
        self.decay, self.stop, self.count, self.average = decay, stop, 0, None

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        now = {name: value.detach().clone() for name, value in task.network.state_dict().items()}
        kept = min(self.decay, (1 + self.count) / (10 + self.count))
        old = self.average or now
        self.average = {name: kept * old[name] + (1 - kept) * now[name] for name in now}
        self.count += 1
        if trainer.global_step == self.stop:
            raise KeyError('stopped')


def _fit(folder, callbacks=(), start=None, epochs=3, **words):
    torch.manual_seed(0)
    task, data = Classification(NETWORK, lr=0.02, **words), _data()
    trainer = make_trainer(folder, max_epochs=epochs, callbacks=[*callbacks], enable_progress_bar=False)
    trainer.fit(task, data, ckpt_path=start)
    return trainer, task, data


def test_the_average_is_that_of_a_plain_loop_and_the_weights_of_the_run(tmp_path):
    watch = _Watch()
    trainer, task, data = _fit(tmp_path, [watch], ema=0.9)
    newest = start_point(tmp_path)
    net = mdnc.checkpoints.load(newest)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, watch.average[name], atol=1e-6, rtol=1e-5)
    [figures] = trainer.test(task, data, ckpt_path=newest, verbose=False)
    again = Classification.load_from_checkpoint(newest)
    [later] = make_trainer(tmp_path, enable_progress_bar=False).test(again, _data(), verbose=False)
    [named] = make_trainer(tmp_path, enable_progress_bar=False).test(
        Classification(NETWORK, ema=0.9), _data(), ckpt_path=newest, verbose=False
    )
    assert figures == later == named
    np.testing.assert_allclose(again.predict(X), net.predict(X), atol=1e-6)


def test_a_run_with_an_average_goes_on_to_the_bit(tmp_path):
    _, whole, _ = _fit(tmp_path / 'whole', ema=0.9)
    with pytest.raises(KeyError, match='stopped'):
        _fit(tmp_path / 'stopped', [_Watch(stop=6), Keeper(every_minutes=0)], ema=0.9)
    _, rest, _ = _fit(tmp_path / 'stopped', ema=0.9, start=start_point(tmp_path / 'stopped'))
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, rest.network.state_dict()[name])
    with pytest.raises(ValueError, match='the run averages its weights'):
        _fit(tmp_path / 'whole', start=start_point(tmp_path / 'whole'), epochs=4)


def test_two_averages_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r'ema=0.9 and a callback of the trainer both average'):
        _fit(tmp_path, [EMAWeightAveraging()], ema=0.9)
    assert Ema(0.5)._average_model is None


# ---- Weights of another run ----


def test_a_training_starts_from_the_weights_of_another_run(tmp_path, capsys):
    _fit(tmp_path / 'one')
    best = mdnc.checkpoints.load(tmp_path / 'one')

    class Begin(L.Callback):
        def on_train_start(self, trainer, task):
            self.state = {name: value.clone() for name, value in task.network.state_dict().items()}

    begin = Begin()
    _fit(tmp_path / 'two', [begin], weights=str(tmp_path / 'one'))
    assert all(torch.equal(begin.state[name], value) for name, value in best.state_dict().items())
    assert f'weights from {tmp_path / "one"}' in capsys.readouterr().out
    newest = start_point(tmp_path / 'two')
    _fit(tmp_path / 'two', [begin], weights=str(tmp_path / 'gone'), start=newest, epochs=4)
    again = Classification.load_from_checkpoint(newest)  # needs nothing of the first run
    make_trainer(tmp_path / 'three', max_epochs=1, callbacks=[begin], enable_progress_bar=False).fit(again, _data())
    kept = mdnc.checkpoints.load(newest).state_dict()
    assert all(torch.equal(begin.state[name], value) for name, value in kept.items()), 'what was trained on goes on'


@pytest.mark.parametrize(('source', 'text'), [('nowhere', 'does not exist'), ('other', 'of a 3-D network')])
def test_weights_that_are_none_are_refused(tmp_path, source, text):
    if source == 'other':
        mdnc.modules.resnet.UNet3d(6, [1, 1], kernel_size=5).save_pretrained(tmp_path / 'other')
    with pytest.raises(ValueError, match=f'^Classification: weights=.*{text}'):
        _fit(tmp_path / 'run', weights=str(tmp_path / source))


# ---- Parts that are held, and rates by layer ----


def test_parts_that_are_held_stay_as_they_were(tmp_path):
    torch.manual_seed(0)
    before = Classification(NETWORK, lr=0.02, freeze=['netbody']).network.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    _, task, _ = _fit(tmp_path, freeze=['netbody'])
    after = task.network.state_dict()
    held = {name for name in after if name.startswith('netbody')}
    assert held and all(torch.equal(before[name], after[name]) for name in held)
    assert not torch.equal(before['fc.weight'], after['fc.weight'])
    assert not Classification.load_from_checkpoint(tmp_path).network.netbody[0].weight.requires_grad


@pytest.mark.parametrize('own', [True, False])
def test_layers_far_from_the_head_learn_slower(tmp_path, own):
    words = {'optimizer': lambda groups: torch.optim.SGD(groups, lr=0.02)} if own else {}
    trainer, task, _ = _fit(tmp_path, layer_decay=0.5, schedule='constant', warmup=0.0, **words)
    due = mdnc.modules.param_groups(task.network, 0.02, 0.01, 0.5)
    found = trainer.optimizers[0].param_groups
    assert [group['lr'] for group in found] == pytest.approx([group['lr'] for group in due])
    assert [group['weight_decay'] for group in found] == [group['weight_decay'] for group in due]
    assert len({group['lr'] for group in found}) > 2


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *(('ema', value) for value in (0, 1, -0.5, 1.5, 'a', True)),
        *(('weights', value) for value in (3, '', ['a'])),
        *(('freeze', value) for value in ('netbody', [3], 3, ['nebody'], ['netbody', 'fc'])),
        *(('layer_decay', value) for value in (0, 1.5, -1, 'a', None)),
    ],
    ids=str,
)
def test_words_out_of_range_are_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=f'^Classification: {name}'):
        Classification(NETWORK, **{name: value})
