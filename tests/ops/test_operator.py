"""The public operator: equal to its definition, refusals by name, the plain path where it must be."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import mdnc
from mdnc.ops import norm_act_conv
from mdnc.ops.backend import TABLE
from mdnc.ops.convolution import Geometry
from mdnc.ops.definition import Norm, Resize, Unit, Weights, unit

C, OUT = 3, 4


def test_equals_torch_layer_by_layer():
    x, kernel, bias = torch.randn(2, C, 7, 6), torch.randn(OUT, C, 3, 3), torch.randn(OUT)
    scale, shift, slope = torch.randn(3, C)
    h = F.prelu(F.instance_norm(x, None, None, scale, shift, eps=1e-3), slope)
    want = F.conv2d(F.interpolate(h, (13, 11), mode='bilinear', align_corners=True), kernel, bias, 1, (1, 0))
    how: dict[str, Any] = {'scale': scale, 'shift': shift, 'slope': slope, 'eps': 1e-3}
    got = norm_act_conv(x, kernel, bias, **how, padding=(1, 0), size=(13, 11))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_plainly_under_a_transform():
    x, kernel = torch.randn(5, 2, C, 7), torch.randn(OUT, C, 1)
    each = torch.func.vmap(lambda one: norm_act_conv(one, kernel, activator='relu'))(x)
    torch.testing.assert_close(each, torch.stack([norm_act_conv(one, kernel, activator='relu') for one in x]))


def test_compiles_whole():
    x, kernel = torch.randn(2, C, 7), torch.randn(OUT, C, 1)
    run = torch.compile(lambda: norm_act_conv(x, kernel, activator='null'), backend='eager', fullgraph=True)
    torch.testing.assert_close(run(), norm_act_conv(x, kernel, activator='null'))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'activator': 'gelu'}, "activator='gelu' must be one of"),
        ({'activator': 'relu', 'slope': torch.ones(C)}, r"slope=\(3,\) must be given with activator='prelu' alone"),
        ({}, r"slope=None must be given with activator='prelu' alone"),
        ({'activator': 'null', 'stride': (1, 2)}, r'stride=\(1, 2\) must be one int of at least 1, or 1 of them'),
        ({'activator': 'null', 'memory': 'slim'}, "memory='slim' must be one of"),
        ({'activator': 'null', 'x': torch.zeros(2, C)}, 'x=2 must have 3, 4 or 5 dimensions'),
        ({'activator': 'null', 'kernel': torch.zeros(OUT, 5, 1)}, r'kernel=\(4, 5, 1\) must fit x'),
        ({'activator': 'null', 'stride': 0}, 'stride=0 must be one int of at least 1'),
        ({'activator': 'null', 'stride': [0]}, r'stride=\[0\] must be one int of at least 1'),
        ({'activator': 'null', 'padding': -1}, 'padding=-1 must be one int of at least 0'),
        ({'activator': 'null', 'size': 0}, 'size=0 must be one int of at least 1'),
        ({'activator': 'null', 'eps': -1e-5}, 'eps=-1e-05 must be None or a finite number of at least 0'),
        ({'activator': 'null', 'eps': float('nan')}, 'eps=nan must be None or a finite number'),
        ({'activator': 'null', 'x': torch.zeros(0, C, 8)}, r'x=\(0, 3, 8\) must not be empty'),
        ({'activator': 'null', 'x': torch.zeros(2, C, 1)}, r'x=\(2, 3, 1\) must have at least 2 values a plane'),
        ({'activator': 'null', 'kernel': torch.zeros(OUT, C, 9)}, r'kernel=\(4, 3, 9\) must not be larger than'),
        ({'activator': 'null', 'bias': torch.zeros(C)}, r'bias=\(3,\) must have the shape \(4,\)'),
        ({'activator': 'null', 'scale': torch.zeros(1)}, r'scale=\(1,\) must have the shape \(3,\)'),
        ({'slope': torch.zeros(2)}, r'slope=\(2,\) must have the shape \(3,\) or \(1,\)'),
        ({'activator': 'null', 'eps': None, 'shift': torch.zeros(C)}, "shift='given' is of a norm, which eps=None"),
        ({'activator': 'null', 'bias': torch.zeros(OUT, device='meta')}, "bias='meta' must be on the device of x, cpu"),
    ],
)
def test_refusals_name_the_argument(options: dict[str, Any], message: str):
    options = {'x': torch.zeros(2, C, 8), 'kernel': torch.zeros(OUT, C, 1), **options}
    with pytest.raises(ValueError, match=f'norm_act_conv: {message}'):
        mdnc.ops.norm_act_conv(**options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'x': [[[1.0]]]}, 'x=list must be a tensor'),
        ({'x': torch.zeros(2, C, 8, dtype=torch.int64)}, 'x=dtype must be of a floating-point dtype'),
        ({'kernel': None}, 'kernel=NoneType must be a tensor'),
        (
            {'kernel': torch.zeros(OUT, C, 1, dtype=torch.float64)},
            'kernel=dtype must have the dtype of x, torch.float32',
        ),
        ({'bias': 0.5}, 'bias=0.5 must be a tensor'),
        ({'stride': True}, 'stride=True must be one int of at least 1'),
        ({'stride': 1.0}, 'stride=1.0 must be one int of at least 1'),
        ({'stride': '1'}, "stride='1' must be one int of at least 1"),
        ({'stride': (True,)}, 'stride=tuple must be one int of at least 1'),
        ({'padding': None}, 'padding=NoneType must be one int of at least 0'),
        ({'size': 2.5}, 'size=2.5 must be one int of at least 1'),
        ({'eps': '1e-5'}, "eps='1e-5' must be None or a finite number"),
        ({'eps': True}, 'eps=True must be None or a finite number'),
    ],
)
def test_wrong_types_are_named_too(options: dict[str, Any], message: str):
    options = {'x': torch.zeros(2, C, 8), 'kernel': torch.zeros(OUT, C, 1), 'activator': 'null', **options}
    with pytest.raises(TypeError, match=f'norm_act_conv: {message}'):
        norm_act_conv(**options)


@pytest.mark.parametrize('number', [np.int64(2), np.array([2, 2]), torch.tensor([2, 2]), [np.int32(2), 2]], ids=repr)
def test_every_kind_of_int_is_one(number):
    x, kernel = torch.randn(2, C, 8, 8), torch.randn(OUT, C, 3, 3)
    got = norm_act_conv(x, kernel, activator='relu', stride=number, padding=number, size=number, eps=np.float32(1e-5))
    want = norm_act_conv(x, kernel, activator='relu', stride=2, padding=2, size=2, eps=float(np.float32(1e-5)))
    assert torch.equal(got, want)


@pytest.mark.parametrize('memory', ['plain', 'lean'])
def test_one_sample_with_its_channels_last(memory):
    # Torch's own gradient of an instance norm is wrong where it comes so.
    x, kernel = torch.randn(1, C, 6, 5, dtype=torch.float64), torch.randn(OUT, C, 3, 3, dtype=torch.float64)
    lay = {'memory_format': torch.channels_last}
    for given, own in ((x.contiguous(**lay), kernel), (x, kernel.contiguous(**lay)), (x, kernel)):
        given, own = given.clone().requires_grad_(), own.clone().requires_grad_()
        y = norm_act_conv(given, own, activator='relu', memory=memory)
        g = torch.ones_like(y).cumsum(-1).contiguous(**lay)
        inputs = x.clone().requires_grad_(), kernel.clone().requires_grad_()
        want = torch.autograd.grad(F.conv2d(F.relu(F.instance_norm(inputs[0])), inputs[1]), inputs, g.contiguous())
        torch.testing.assert_close(torch.autograd.grad(y, (given, own), g), want)


@pytest.mark.parametrize(
    ('length', 'channels', 'options', 'fused'),
    [
        (8, C, {}, False),
        (9, C, {}, True),
        (8, C, {'memory': 'fast'}, True),
        (8, C, {'size': 16}, True),
        (4, 5, {}, True),
    ],
)
def test_few_values_are_computed_by_torchs_layers(length, channels, options, fused, monkeypatch):
    by = TABLE['torch', 'cpu']
    limits = by.tools.limits._replace(few_values=2 * 8 * C, few_channels=4)
    monkeypatch.setitem(TABLE, ('torch', 'cpu'), by._replace(few=True, tools=by.tools._replace(limits=limits)))
    x, kernel = torch.randn(2, channels, length), torch.randn(OUT, channels, 1, requires_grad=True)
    y = norm_act_conv(x, kernel, activator='relu', **options)
    assert ('Fused' in type(y.grad_fn).__name__) == fused
    weights = Weights(None, None, None, kernel, None)
    resize = Resize((options['size'],)) if 'size' in options else None
    how = Unit(Geometry((1,), (0,)), Norm('instance', 1e-5), 'relu', resize=resize)
    torch.testing.assert_close(y, unit(x, weights, how))
