"""What a picture shows is read off the plan; all its words are inside it and none covers another."""

import itertools
import subprocess
import sys

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

from mdnc.analysis import draw, figure
from mdnc.analysis.sketch import Skip, sketch
from mdnc.modules.resnet import AE2d, DecoderNet2d, EncoderNet2d, EncoderNet3d, UNet2d, UNet3d, unet83
from tests import catalogue
from tests.catalogue import identity


def cells(sketch, row):
    index = sketch.rows.index(row)
    return [column.cells[index] for column in sketch.columns]


def test_an_encoder_as_documented():
    net = EncoderNet2d(64, [2] * 5, in_planes=3, out_length=32)
    drawn = sketch(net, (64, 63))
    assert drawn.title == 'EncoderNet2d · 32 layers · 31,190,816 parameters · bottleneck blocks · kernel 3 × 3'
    assert [column.name for column in drawn.columns] == [*(f'netbody.{i}' for i in range(7)), 'fc']
    assert [column.role for column in drawn.columns] == ['conv', *['down'] * 5, 'conv', 'vector']
    assert cells(drawn, 'gives channels') == ['64', '64', '128', '256', '512', '1024', '1024', '32']
    assert cells(drawn, 'of size')[:4] == ['64 × 63', '32 × 32', '16 × 16', '8 × 8']
    assert cells(drawn, 'blocks') == ['', '2', '2', '2', '2', '2', '', '']
    assert [slab.shortcut for slab in drawn.columns[1].slabs] == ['identity', 'conv']
    assert [slab.shortcut for slab in drawn.columns[2].slabs] == ['conv', 'conv']
    assert (drawn.source, drawn.result) == ('3 × 64 × 63', 'vector of 32')
    assert not drawn.skips


def test_a_decoder_knows_its_sizes():
    drawn = sketch(DecoderNet2d(4, [1, 2], out_size=(13, 10), in_length=3), None)
    assert [column.role for column in drawn.columns] == ['vector', 'conv', 'up', 'up', 'conv']
    assert cells(drawn, 'of size') == ['4 × 3', '4 × 3', '7 × 5', '13 × 10', '13 × 10']
    assert (drawn.source, drawn.result) == ('vector of 3', '1 × 13 × 10')


def test_a_unet_has_its_skips_and_an_auto_encoder_none():
    drawn = sketch(UNet2d(4, [1, 2, 1]), (16, 16))
    assert drawn.skips == (Skip(1, 5, 4), Skip(2, 4, 8))
    assert [column.role for column in drawn.columns[1:-1]] == ['down', 'down', 'middle', 'up', 'keep']
    assert not sketch(AE2d(4, [1, 2, 1]), (16, 16)).skips


@pytest.mark.parametrize('layers', [[2, 1, 1], [1, 2, 1], [1, 1, 3, 2], [3, 1, 2, 1]])
def test_skips_of_an_uneven_unet_say_what_is_concatenated(layers):
    net = UNet2d(4, layers)
    joined = []  # channels that come from the way down, the innermost level first

    def see(stage, inputs):
        joined.append(inputs[1].shape[1])

    for stage in net.conv_up_list:
        stage.register_forward_pre_hook(see)
    net(torch.zeros(1, 1, 32, 32))
    drawn = sketch(net, (32, 32))
    assert [skip.planes for skip in drawn.skips] == joined[::-1]
    words = [text.get_text() for text in figure(net, 32).axes[0].texts]
    assert [word for word in words if word.startswith('skip of')] == [f'skip of {planes}' for planes in joined]


def test_without_a_size_sizes_are_relative():
    drawn = sketch(UNet3d(4, [1, 1, 1], kernel_size=(1, 3, 3)), None)
    assert cells(drawn, 'of size (input: 1)') == ['1', '1 × 1/2 × 1/2', '1 × 1/4 × 1/4', '1 × 1/2 × 1/2', '1', '1', '1']
    sides = [column.slabs[-1].after for column in drawn.columns]
    assert sides == pytest.approx([4 ** (-level / 3) for level in (0, 1, 2, 1, 0, 0, 0)])
    still = sketch(EncoderNet3d(4, [2, 1], kernel_size=1), None)
    assert [column.role for column in still.columns[1:3]] == ['keep', 'keep']
    assert still.columns[1].slabs[1].shortcut == 'identity'


def extents(drawn):
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    texts = [text for text in drawn.axes[0].texts if text.get_text()]
    texts += drawn.legends[0].get_texts()
    return drawn.bbox, [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]


@pytest.mark.parametrize(
    ('net', 'size'),
    [
        *(pytest.param(entry.build(), entry.input, id=identity(entry)) for entry in catalogue.NETWORKS),
        pytest.param(unet83(order=3), (256, 256, 256), id='the widest preset, long sizes'),
        pytest.param(EncoderNet2d(4, [12, 1]), None, id='a deep stage'),
        pytest.param(UNet2d(4, [1] * 9), 2**20, id='many levels'),
    ],
)
def test_words_are_inside_and_do_not_cover_each_other(net, size):
    page, found = extents(figure(net, size))
    for words, box in found:
        assert page.x0 <= box.x0, words
        assert box.x1 <= page.x1, words
        assert page.y0 <= box.y0, words
        assert box.y1 <= page.y1, words
    for (a, one), (b, other) in itertools.combinations(found, 2):
        assert not one.overlaps(other), (a, b)


@pytest.mark.parametrize('kind', ['svg', 'png', 'pdf'])
def test_files_are_whole_and_always_the_same(kind, tmp_path):
    net = UNet2d(4, [1, 1, 1])
    first, second = (draw(net, tmp_path / f'{name}.{kind}', (13, 10)) for name in 'ab')
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[:5] in (b'<?xml', b'\x89PNG\r', b'%PDF-')
    assert len(list(tmp_path.iterdir())) == 2


def test_wrong_arguments_are_refused_by_name(tmp_path):
    net = UNet2d(4, [1, 1])
    with pytest.raises(ValueError, match=r"draw: path's suffix='gif' must be one of 'svg', 'png', 'pdf'"):
        draw(net, tmp_path / 'net.gif')
    with pytest.raises(TypeError, match='figure: net must be one of the networks of mdnc, not Linear'):
        figure(nn.Linear(2, 2))
    with pytest.raises(ValueError, match='too small'):
        draw(net, tmp_path / 'net.svg', (1, 1))
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    with pytest.raises(ImportError, match=r"pip install 'mdnc\[analysis\]'"):
        figure(UNet2d(4, [1, 1]))


def test_matplotlib_is_imported_only_to_draw():
    code = 'import sys, mdnc.analysis; assert not [name for name in sys.modules if name.startswith("matplotlib")]'
    subprocess.run([sys.executable, '-c', code], check=True)
