"""Networks by name."""

import pytest
import torch

import mdnc
from mdnc.modules import Network, create_model, list_models, resnet


def test_every_network_is_listed_and_made():
    assert list_models() == [name for name in resnet.__all__ if not name.startswith('Block')]
    for name in list_models('encnet*') + list_models('res*'):
        with torch.device('meta'):
            assert isinstance(create_model(name, order=1), Network)


def test_patterns_tell_no_case():
    assert list_models('*unet*') == [name for name in resnet.__all__ if 'unet' in name.lower()]
    assert list_models('UNET?d') == ['UNet1d', 'UNet2d', 'UNet3d']
    assert list_models('nothing') == []


def test_arguments_are_those_of_the_network():
    net = create_model('EncoderNet2d', channel=4, layers=[1, 1], normalizer='batch')
    assert net.config == resnet.EncoderNet2d(4, [1, 1], normalizer='batch').config
    assert mdnc.create_model is create_model and mdnc.list_models is list_models


def test_refused_by_name():
    with pytest.raises(ValueError, match=r"unknown network 'encnet33'\. Did you mean encnet32\?"):
        create_model('encnet33')
    with pytest.raises(ValueError, match='BlockPlain2d'):
        create_model('BlockPlain2d', in_planes=1, out_planes=1)
    with pytest.raises(TypeError, match='name=3'):
        create_model(3)
    with pytest.raises(TypeError, match='pattern=None'):
        list_models(None)
    with pytest.raises(TypeError, match='unknown argument normaliser'):
        create_model('encnet12', normaliser='batch')
