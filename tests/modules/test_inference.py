"""From inputs in the data's own units to answers: channel by channel, in single precision, in tiles, residual."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from mdnc.checkpoints import Answer
from mdnc.modules import resnet
from mdnc.modules._inference import Steps
from mdnc.modules._standardization import Constants, Scale
from mdnc.modules._tiling import run_tiled

VALUES = {'output': 'values'}


def test_scales_are_made_in_single_precision_whatever_the_values_are():
    scale = Scale({'mean': [1013.25], 'std': [0.5]})
    for dtype in (torch.float16, torch.bfloat16, torch.uint8):
        assert scale.standard(torch.zeros(1, 1, 2, dtype=dtype)).unique().item() == pytest.approx(-2026.5, rel=1e-6)
        assert scale.own(torch.zeros(1, 1, 2, dtype=dtype)).dtype == torch.float32
    assert scale.standard(torch.zeros(1, 1, 2).double()).dtype == torch.float64
    assert Scale(None).standard(torch.zeros(1, 1, dtype=torch.uint8)).dtype == torch.float32


def test_one_channel_is_not_taken_for_three():
    scale = Scale({'mean': [1.0, 2.0, 3.0], 'std': [1.0] * 3}, 'the picture')
    for turn in (scale.standard, scale.own):
        with pytest.raises(ValueError, match=r'the picture has 1 channel in the shape \(2, 1, 5\), but .* have 3'):
            turn(torch.zeros(2, 1, 5))
        with pytest.raises(ValueError, match='has 4 channels'):
            turn(torch.zeros(2, 4))
    assert Scale({'mean': [1.0], 'std': [2.0]}).standard(torch.ones(2, 3, 4)).eq(0).all()  # one for all


def test_figures_of_inference_mode_do_not_stop_a_gradient():
    with torch.inference_mode():
        scale = Scale({'mean': [1.0], 'std': [2.0]})
        scale.standard(torch.ones(1, 1, 3))
    x = torch.ones(1, 1, 3, requires_grad=True)
    scale.own(scale.standard(x) * x).sum().backward()
    assert x.grad is not None


def test_figures_made_on_a_device_in_inference_mode_serve_autograd_too():
    values = Constants([1.0])
    with torch.inference_mode():
        values.beside(torch.empty(0, device='meta'))
    assert not values.beside(torch.empty(0, device='meta')).is_inference()


def test_scales_are_copied_and_pickled_with_their_task():
    x = torch.randn(2, 1, 3)
    steps = Steps({'normalisation': {'mean': [1.0], 'std': [2.0]}, 'answer': VALUES})
    for other in (copy.deepcopy(steps), pickle.loads(pickle.dumps(steps))):
        torch.testing.assert_close(other.before.standard(x), steps.before.standard(x))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('tile', [(96, 96, 96), (512, 512)])
def test_tiles_in_half_precision_are_summed_in_single(tile, dtype):
    x = torch.rand(1, 1, *(side + 3 for side in tile)) + 1
    y = run_tiled(lambda part: part.to(dtype), x, tile)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, x.to(dtype).float(), rtol=1e-5, atol=0)


def test_what_cannot_be_tiled_is_named():
    for tile, overlap, text in (([0], 0.25, 'each at least 1'), ([4], 1.0, r'overlap=1.0 must be in \[0, 1\)')):
        with pytest.raises(ValueError, match=text):
            run_tiled(lambda part: part, torch.zeros(1, 1, 8), tile, overlap)
    with pytest.raises(ValueError, match=r'overlap=-0\.5'):
        run_tiled(lambda part: part, torch.zeros(1, 1, 8), [4], -0.5)


def test_each_output_is_what_it_is_called():
    scores = torch.tensor([[2.0, 1.0], [0.0, 5.0]])
    target = {'mean': [10.0, 20.0], 'std': [1.0, 2.0]}
    made = {
        output: Steps({'answer': {'output': output}, 'target_normalisation': target}).last(scores)
        for output in ('values', 'probabilities', 'classes', 'scores')
    }
    assert made['values'].tolist() == [[12.0, 22.0], [10.0, 30.0]]
    torch.testing.assert_close(made['probabilities'], scores.softmax(1))
    assert made['classes'].tolist() == [0, 1]
    assert made['classes'].dtype == torch.uint8
    assert made['scores'] is scores
    assert Steps({'answer': {'output': 'classes'}}).last(torch.zeros(1, 300)).dtype == torch.int64
    with pytest.raises(ValueError, match=r"answer=\{'output': 'logits'\} must say its output, one of"):
        Steps({'answer': {'output': 'logits'}})


def test_a_residual_is_added_in_the_units_of_the_output():
    scale = {'mean': [100.0], 'std': [10.0]}
    steps = Steps({'normalisation': scale, 'target_normalisation': scale, 'answer': {**VALUES, 'residual': True}})
    x = torch.tensor([[[90.0, 120.0]]])
    torch.testing.assert_close(steps.last(steps.whole(torch.zeros_like, x)), x)
    torch.testing.assert_close(steps.last(steps.whole(torch.ones_like, x)), x + 10)
    for network in (lambda x: x[:, :, :1], lambda x: torch.cat([x, x], 1)):
        with pytest.raises(ValueError, match=r'residual: the network returns \(\d, \d\) for a sample, but .* \(3, 2\)'):
            Steps({'answer': {**VALUES, 'residual': True}}).scores(network, torch.zeros(1, 3, 2))


def test_a_residual_is_added_to_the_first_channels():
    given = {'mean': [100.0, 5.0], 'std': [10.0, 1.0]}
    scale = {'mean': [100.0], 'std': [10.0]}
    steps = Steps({'normalisation': given, 'target_normalisation': scale, 'answer': {**VALUES, 'residual': True}})
    x = torch.tensor([[[90.0, 120.0], [4.0, 7.0]]])  # in standard units -1, 2 and -1, 2
    torch.testing.assert_close(steps.last(steps.whole(lambda x: x[:, 1:], x)), x[:, :1] + torch.tensor([-10.0, 20.0]))


def test_only_dense_networks_answer_in_tiles():
    data = {'patch': [4], 'overlap': 0.5}
    seen = []

    def network(x):
        seen.append(x.shape[2])
        return x

    Steps({**data, 'answer': {**VALUES, 'dense': True}}).whole(network, torch.zeros(1, 1, 10))
    assert set(seen) == {4}
    seen.clear()
    Steps({**data, 'answer': VALUES}).whole(network, torch.zeros(1, 1, 10))
    assert seen == [10]


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_a_network_in_another_precision_gets_it(dtype):
    net = resnet.EncoderNet1d(4, [1, 1], out_length=2).to(dtype)
    answer = Answer(net, {'normalisation': {'mean': [1000.0], 'std': [1.0]}, 'answer': VALUES})
    x = 1000 + torch.randn(2, 1, 32)
    y = answer.predict(x)
    assert y.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(y, net.eval()((x - 1000).to(dtype)).to(y.dtype))


def test_a_network_answers_arrays_and_tensors_and_stays_as_it_was():
    net = resnet.EncoderNet1d(4, [1, 1], out_length=2).train()
    net.netbody[1].eval()
    modes = [module.training for module in net.modules()]
    answer = Answer(net, {'answer': {'output': 'probabilities'}})
    x = np.random.default_rng(0).normal(size=(3, 1, 32))
    y = answer.predict(x)
    assert isinstance(y, np.ndarray)
    given = torch.from_numpy(x).requires_grad_()
    other = answer.predict(given)
    assert not other.requires_grad
    np.testing.assert_array_equal(y, other.numpy())
    assert [module.training for module in net.modules()] == modes


def test_dropout_is_off_in_answers():
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 2), nn.Dropout(0.5)).train()
    answer = Answer(net, {'answer': VALUES})
    x = torch.randn(4, 1, 8)
    torch.testing.assert_close(answer.predict(x), net[:2](x).detach())


def test_what_is_not_known_is_not_answered():
    net = resnet.EncoderNet1d(4, [1, 1], out_length=2)
    with pytest.raises(ValueError, match=r'EncoderNet1d: nothing is known about its training data.* give it as data='):
        net.predict(torch.zeros(1, 1, 32))
    with pytest.raises(ValueError, match='only classes, normalisation is known'):
        Answer(net, {'classes': ['a', 'b'], 'normalisation': None})


def test_a_saved_network_answers_as_before(tmp_path):
    net = resnet.EncoderNet1d(4, [1, 1], out_length=2)
    data = {'normalisation': {'mean': [3.0], 'std': [2.0]}, 'answer': {'output': 'probabilities'}}
    net.save_pretrained(tmp_path, data)
    x = torch.randn(3, 1, 32)
    again = resnet.EncoderNet1d.from_pretrained(tmp_path)
    torch.testing.assert_close(again.predict(x), Answer(net, data).predict(x), rtol=0, atol=0)
    torch.testing.assert_close(again.predict(x), net.eval()((x - 3) / 2).softmax(1).detach())
