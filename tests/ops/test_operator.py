"""The public operator: equal to its definition, refusals by name, the plain path where it must be."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import mdnc
from mdnc.ops import norm_act_conv

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
        ({'activator': 'null', 'stride': (1, 2)}, r'stride=\(1, 2\) must be one int, or 1 of them'),
        ({'activator': 'null', 'memory': 'slim'}, "memory='slim' must be one of"),
        ({'activator': 'null', 'x': torch.zeros(2, C)}, 'x=2 must have 3, 4 or 5 dimensions'),
        ({'activator': 'null', 'kernel': torch.zeros(OUT, 5, 1)}, r'kernel=\(4, 5, 1\) must fit x'),
    ],
)
def test_refusals_name_the_argument(options: dict[str, Any], message: str):
    options = {'x': torch.zeros(2, C, 8), 'kernel': torch.zeros(OUT, C, 1), **options}
    with pytest.raises(ValueError, match=f'norm_act_conv: {message}'):
        mdnc.ops.norm_act_conv(**options)
