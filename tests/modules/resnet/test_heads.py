"""A new head in place of the old: everything else stays, and what is saved follows."""

from typing import Any

import pytest
import torch

import mdnc
from mdnc.modules import resnet


@pytest.mark.parametrize(
    'words',
    [
        {},
        {'tail': 'norm', 'pool': 'gem', 'amplitude': True, 'dropout': 0.1},
        {'tail': 'null', 'normalizer': 'batch', 'dtype': torch.float64},
    ],
)
@pytest.mark.parametrize('lengths', [(5,), (None,), (None, 4), (3,)])
def test_reset_head(words: dict[str, Any], lengths: tuple[int | None, ...]):
    net = resnet.EncoderNet1d(4, [1, 1], out_length=3, memory='least', **words).eval()
    net.netbody[1].requires_grad_(False)
    dtype, old = next(net.parameters()).dtype, net.fc
    x = torch.randn(2, 1, 20, dtype=dtype)
    maps = net.forward_features(x)
    for length in lengths:
        assert net.reset_head(length) is net
    y, again = net(x), type(net)(**net.config)
    assert y.dtype == dtype and y.shape == ((2, 8, 5) if length is None else (2, length))
    assert list(net.state_dict()) == list(again.state_dict()) and net.plan == again.plan
    assert net.nlayers == again.nlayers and net.config['out_length'] == length
    torch.testing.assert_close(net.forward_features(x), maps)
    assert net.fc is not old and (net.fc is None) == (length is None)
    assert not net.training and net.memory == 'least' and not net.netbody[1].conv_scale.conv1[2].weight.requires_grad


def test_what_was_loaded_speaks_of_no_new_head(tmp_path: Any):
    resnet.EncoderNet1d(4, [1, 1]).save_pretrained(tmp_path, data={'classes': ['a', 'b']})
    net = mdnc.checkpoints.load(tmp_path).reset_head(3)
    net.save_pretrained(tmp_path / 'new')
    assert mdnc.checkpoints.load(tmp_path / 'new').origin.data is None
    assert mdnc.checkpoints.load(tmp_path / 'new').config['out_length'] == 3


def test_reset_head_refuses_by_name():
    net = resnet.EncoderNet1d(4, [1, 1])
    with pytest.raises(ValueError, match='EncoderNet1d: out_length=0'):
        net.reset_head(0)
    with pytest.raises(TypeError, match="EncoderNet1d: out_length='2'"):
        net.reset_head('2')
    assert net(torch.zeros(1, 1, 20)).shape == (1, 2)
