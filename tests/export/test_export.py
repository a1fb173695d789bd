"""Exported files compute what their networks compute, at sizes that were not traced, and say what they take."""

import copy
import json
import logging
import re
import warnings

import pytest
import torch

import mdnc.export
from mdnc import export
from mdnc.cli import main
from mdnc.export import comparison, contract, formats, graph
from mdnc.modules import resnet
from tests.catalogue import CLASSES, VARIANTS

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

TO = {'onnx': export.to_onnx, 'torch': export.to_torch_export}
SUFFIX = {'onnx': '.onnx', 'torch': '.pt2', 'aoti': '.pt2'}
SCALES = {
    'normalisation': {'mean': [0.5, -1.0], 'std': [2.0, 0.25]},
    'target_normalisation': {'mean': [3.0], 'std': [10.0]},
}


@pytest.fixture(scope='module')
def net():
    torch.manual_seed(0)
    return resnet.UNet2d(4, [2, 1], in_planes=2, block='plain')


@pytest.fixture(scope='module', params=TO)
def made(request, net, tmp_path_factory):
    path = tmp_path_factory.mktemp('made') / f'net{SUFFIX[request.param]}'
    return request.param, TO[request.param](net, path, **SCALES)


def _run(kind, path, x):
    # By the formats' own libraries, as another program would.
    if kind == 'onnx':
        session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
        return torch.from_numpy(session.run(['y'], {'x': x.numpy()})[0])
    return torch.export.load(path).module()(x)


@pytest.mark.parametrize('size', [(33, 20), (17, 64), (3, 3), (9, 1), (1, 5)], ids=str)
@pytest.mark.parametrize('batch', [1, 5])
def test_a_file_computes_what_its_network_computes(made, net, size, batch):
    kind, file = made
    x = torch.randn(batch, 2, *size)
    mean, std = (torch.tensor(SCALES['normalisation'][key]).view(-1, 1, 1) for key in ('mean', 'std'))
    y = net((x - mean) / std) * 10 + 3
    torch.testing.assert_close(_run(kind, file.path, x), y, rtol=1e-4, atol=1e-4)


def test_the_record_says_what_was_compared(made, net):
    _, file = made
    assert 0 <= file.difference < 1e-5
    shapes = [each.shape for each in file.compared]
    assert len({shape[2:] for shape in (*shapes, contract.sample_shape(net))}) == 3
    assert {shape[0] for shape in (*shapes, contract.sample_shape(net))} == {1, 2, 3}
    assert {length % 2 for shape in shapes for length in shape[2:]} == {0, 1}


def test_a_file_says_what_it_is(made, net):
    kind, file = made
    if kind == 'onnx':
        session = onnxruntime.InferenceSession(str(file.path), providers=['CPUExecutionProvider'])
        said = json.loads(session.get_modelmeta().custom_metadata_map['mdnc'])
        assert session.get_inputs()[0].shape == ['batch', 2, 'L1', 'L2']
        assert session.get_outputs()[0].shape == ['batch', 1, 'L1', 'L2']
    else:
        extra = {'mdnc': ''}
        torch.export.load(file.path, extra_files=extra)
        said = json.loads(extra['mdnc'])
    assert said == file.facts
    assert said['network']['name'] == 'UNet2d'
    assert type(net)(**said['network']['arguments']).config == net.config
    assert said['input'] == '(batch, 2, L1, L2)'
    assert said['sizes'].startswith(
        'any batch; lengths with ceil(L1/2) · ceil(L2/2) ≥ 2, so with equal sides from 3 × 3'
    )
    assert said['smallest_equal_sided'] == [3, 3]
    assert said['normalisation'] == SCALES['normalisation']


def test_there_is_one_file(made):
    _, file = made
    assert list(file.path.parent.iterdir()) == [file.path]


def test_the_written_file_can_be_checked(made, net):
    _, file = made
    rows = export.check(file.path, net, [(33, 20), 9])
    assert [row.shape for row in rows] == [(3, 2, 33, 20), (3, 2, 9, 9)]
    assert all(row.agrees for row in rows)
    assert len(export.check(file.path, net)) == 2
    with pytest.raises(ValueError, match=r'UNet2d: input size \(2, 2\) is too small'):
        export.check(file.path, net, [2])


def test_another_network_is_noticed(made, net):
    _, file = made
    other = resnet.UNet2d(**net.config)
    assert not any(row.agrees for row in export.check(file.path, other))
    with pytest.raises(ValueError, match='of a UNet2d with other arguments'):
        export.check(file.path, resnet.UNet2d(4, [2, 1]))


def test_the_smallest_sizes_are_stated_right():
    # The rule in the text is the network's own.
    for net in (resnet.UNet2d(1, [1, 1, 1], kernel_size=(1, 3)), resnet.EncoderNet1d(1, [1, 1])):
        rule = re.search(r'with (.*) ≥ 2', contract.facts(net, {})['sizes'])[1].replace('·', '*')
        for l1 in range(1, 10):
            for l2 in range(1, 10):
                sides = (l1, l2)[: net.plan.order]
                values = {'L1': l1, 'L2': l2, 'ceil': lambda ratio: -int(-ratio // 1)}
                assert (eval(rule, values) >= 2) == (net.plan.refusal(sides) is None)


@pytest.mark.parametrize('kind', TO)
def test_exporting_changes_nothing_and_says_nothing(kind, tmp_path, capfd):
    net = resnet.EncoderNet1d(2, [1, 1], out_length=None).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    random, level = torch.get_rng_state(), logging.getLogger('torch.onnx').level
    calls = []
    handle = net.register_forward_hook(lambda *_: calls.append(1))
    file = TO[kind](net, tmp_path / f'net{SUFFIX[kind]}')
    handle.remove()
    assert not calls
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert logging.getLogger('torch.onnx').level == level
    assert capfd.readouterr().out == ''
    assert 'data' in file.facts


@pytest.mark.parametrize('kind', TO)
def test_a_decoder_has_a_free_batch(kind, tmp_path):
    net = resnet.DecoderNet2d(2, [1, 1], out_size=(9, 10), in_length=3)
    scales = {'normalisation': {'mean': [1.0, 2.0, 3.0], 'std': [2.0]}}
    file = TO[kind](net, tmp_path / f'net{SUFFIX[kind]}', **scales)
    assert file.facts['input'] == '(batch, 3)'
    assert file.facts['sizes'] == 'any batch; it always gives 9 × 10'
    x = torch.randn(7, 3)
    y = net((x - torch.tensor([1.0, 2.0, 3.0])) / 2)
    torch.testing.assert_close(_run(kind, file.path, x), y, rtol=1e-4, atol=1e-4)
    assert all(row.agrees for row in export.check(file.path, net))


def test_a_graph_that_computes_something_else_is_not_written(net, tmp_path, monkeypatch):
    path = tmp_path / 'net.pt2'
    path.write_bytes(b'before')
    opened = formats.TorchExport.open

    def wrong(self, draft):
        file = opened(self, draft)
        return formats.Opened(lambda x: file.run(x) * 1.001, file.facts)

    monkeypatch.setattr(formats.TorchExport, 'open', wrong)
    with pytest.raises(ValueError, match=r'graph is off UNet2d by 1\.0e-03 .* nothing was written'):
        export.to_torch_export(net, path)
    assert path.read_bytes() == b'before'
    assert list(tmp_path.iterdir()) == [path]


def test_rounding_allows_no_other_answer(net, monkeypatch):
    # Where the network's own answer is far off, ten times that is more than any answer is off.
    monkeypatch.setattr(comparison, '_fine', lambda graph, x: graph(x) * 2)
    scaled = graph.Scaled(net, None, None)
    file = formats.Opened(lambda x: scaled(x) * 3, {})
    (row,) = comparison.compare(file, scaled, [(1, 2, 9, 9)])
    assert row.difference == pytest.approx(2)
    assert not row.agrees


WRONG = {
    'a value': lambda y: y * 1.001,
    'a shape': lambda y: y[..., :1],
    'a shape that spreads': lambda y: y.expand(-1, 2, *y.shape[2:]),  # each value is right, and there are more
    'a shape without channels': lambda y: y[:, 0],
    'the order of axes': lambda y: y.transpose(-1, -2),
    'no number': lambda y: y * float('nan'),
    'no number at one place': lambda y: y.index_fill(-1, torch.tensor(0), float('nan')),
    'no finite number': lambda y: y + float('inf'),
}


@pytest.mark.parametrize('place', [0, 1])
@pytest.mark.parametrize('wrong', WRONG.values(), ids=WRONG)
def test_an_answer_that_differs_anywhere_is_noticed(wrong, place, net, tmp_path, monkeypatch):
    shape = contract.trial_shapes(net)[place]
    opened = formats.TorchExport.open

    def open_wrong(self, draft):
        run = opened(self, draft).run
        return formats.Opened(lambda x: wrong(run(x)) if tuple(x.shape) == shape else run(x), {})

    monkeypatch.setattr(formats.TorchExport, 'open', open_wrong)
    with pytest.raises(
        export.DiffersError, match=rf'for an input of shape {re.escape(str(shape))} .*nothing was written'
    ):
        export.to_torch_export(net, tmp_path / 'net.pt2')
    assert not list(tmp_path.iterdir())


def test_rounding_that_deep_norms_blow_up_is_allowed_for():
    # Planes of 2 values in fp32: no graph could be nearer than the network itself is.
    torch.manual_seed(0)
    net = resnet.UNet1d(8, [4] * 5)
    fine, shape = graph.Scaled(net, None, None).double(), (1, 1, *net.min_size)
    near = formats.Opened(lambda x: fine(x.double()).float(), {})
    (row,) = comparison.compare(near, graph.Scaled(net, None, None), [shape])
    assert row.difference > 10 * comparison.TOLERANCE[torch.float32]
    assert row.agrees
    far = formats.Opened(lambda x: fine(x.double()).float() + 1, {})
    assert not comparison.compare(far, graph.Scaled(net, None, None), [shape])[0].agrees


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'normalisation': {'mean': [0.0]}}, "must be a dict of 'mean' and 'std'"),
        ({'normalisation': [0.0, 1.0]}, "must be a dict of 'mean' and 'std'"),
        ({'normalisation': {'mean': [0.0] * 3, 'std': [1.0]}}, 'lists of 2 finite numbers'),
        ({'normalisation': {'mean': ['a'], 'std': [1.0]}}, 'lists of 2 finite numbers'),
        ({'normalisation': {'mean': [float('nan')], 'std': [1.0]}}, 'lists of 2 finite numbers'),
        ({'normalisation': {'mean': 0.0, 'std': 1.0}}, 'lists of 2 finite numbers'),
        ({'target_normalisation': {'mean': [0.0], 'std': [0.0]}}, 'std above 0'),
    ],
)
def test_scales_that_do_not_fit_are_refused(options, text, net, tmp_path):
    with pytest.raises(ValueError, match=text):
        export.to_torch_export(net, tmp_path / 'net.pt2', **options)


@pytest.mark.parametrize(
    ('call', 'error', 'text'),
    [
        (lambda net, to: export.to_onnx(net, 3), TypeError, 'to_onnx: path=3 must be a str or a path'),
        (lambda net, to: export.to_torch_export(net, ''), ValueError, "to_torch_export: path='' must name"),
        (lambda net, to: export.to_onnx(net, to / 'x.onnx', opset=True), TypeError, 'to_onnx: opset=True must be'),
        (lambda net, to: export.to_onnx(net, to / 'x.onnx', opset=-1), ValueError, 'to_onnx: opset=-1 must be'),
        (lambda net, to: export.to_onnx(net, to / 'x.onnx', opset=18.0), TypeError, 'to_onnx: opset=18.0 must be'),
        (
            lambda net, to: export.to_onnx(net.to('meta'), to / 'x.onnx'),
            ValueError,
            'to_onnx: net is on the meta device',
        ),
        (lambda net, to: export.check(3, net), TypeError, 'check: path=3 must be a str or a path'),
        (lambda net, to: export.check(to / 'x', 3), TypeError, 'check: net must be a network of mdnc, not a int'),
        (lambda net, to: export.check(to / 'x', net.half()), ValueError, 'check: net has weights of torch.float16'),
        (lambda net, to: export.check(to / 'x', net, '33'), TypeError, "check: sizes='33' must be a sequence"),
        (lambda net, to: export.check(to / 'x', net, 33), TypeError, 'check: sizes=33 must be a sequence'),
        (lambda net, to: export.check(to / 'x', net, []), TypeError, r'check: sizes=\[\] must be a sequence'),
    ],
)
def test_arguments_are_refused_by_name(call, error, text, net, tmp_path):
    with pytest.raises(error, match=text):
        call(copy.deepcopy(net), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('facts', ['[]', '{}', '{"network": 3}', '{"network": {"name": "UNet2d"}}', 'no json'])
def test_files_that_say_something_else_are_refused(facts, net, tmp_path):
    from torch.export import export as exported

    program = exported(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / 'x.pt2', extra_files={'mdnc': facts})
    with pytest.raises(ValueError, match=r'x\.pt2 cannot be opened as an export of mdnc'):
        export.check(tmp_path / 'x.pt2', net)


def test_what_cannot_be_exported_is_refused(net, tmp_path):
    with pytest.raises(TypeError, match='to_onnx: net must be a network of mdnc, not a Linear'):
        export.to_onnx(torch.nn.Linear(1, 1), tmp_path / 'net.onnx')
    for dtype in (torch.float16, torch.float64):
        with pytest.raises(ValueError, match=rf'weights of {dtype}.*make them float32 first'):
            export.to_onnx(resnet.EncoderNet1d(2, [1, 1]).to(dtype), tmp_path / 'net.onnx')
    with pytest.raises(FileNotFoundError, match='must be a file in a folder that is there'):
        export.to_onnx(net, tmp_path / 'none' / 'net.onnx')
    with pytest.raises(ValueError, match=r'must end in \.pt2'):
        export.to_torch_export(net, tmp_path / 'net.onnx')
    with pytest.raises(ValueError, match=r'opset=9 cannot be had: the exporter gives \d+'):
        export.to_onnx(resnet.EncoderNet1d(2, [1, 1]), tmp_path / 'net.onnx', opset=9)
    assert not list(tmp_path.iterdir())


def test_more_than_one_file_can_hold_is_refused(net, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, 'ONE_FILE', 100)
    with pytest.raises(ValueError, match='an ONNX file holds at most 2 GiB'):
        export.to_onnx(net, tmp_path / 'net.onnx')


def test_a_missing_compiler_is_named_before_any_work(net, tmp_path, monkeypatch):
    from torch._inductor import cpp_builder, exc

    def none():
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, 'get_cpp_compiler', none)
    with pytest.raises(RuntimeError, match=r'needs a C\+\+ compiler and found none: install g\+\+'):
        export.to_aotinductor(net, tmp_path / 'net.pt2')


def test_other_files_are_refused(net, tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        export.check(tmp_path / 'none.onnx', net)
    (tmp_path / 'net.onnx').write_bytes(b'nothing of the kind')
    with pytest.raises(ValueError, match=r'net\.onnx cannot be opened as an export of mdnc'):
        export.check(tmp_path / 'net.onnx', net)
    torch.save({}, tmp_path / 'net.pt2')
    with pytest.raises(ValueError, match=r'net\.pt2 cannot be opened as an export of mdnc'):
        export.check(tmp_path / 'net.pt2', net)


def test_the_command_exports_what_was_saved(net, tmp_path, capsys):
    net.save_pretrained(tmp_path / 'net', SCALES)
    path = tmp_path / 'net.pt2'
    words = [str(tmp_path / 'net'), '--format', 'torch', '--output', str(path)]
    assert main(['export', *words, '--normalise', '--check', '33,20', '9']) == 0
    printed = capsys.readouterr().out
    assert 'target_normalisation is part of the graph' in printed
    assert re.search(r'^  \(3, 2, 33, 20\) +\d\.\de[-+]\d\d of 1\.0e-04 allowed: agrees$', printed, re.MULTILINE)
    assert printed.count('agrees') == 4
    x = torch.randn(1, 2, 8, 8)
    mean, std = (torch.tensor(SCALES['normalisation'][key]).view(-1, 1, 1) for key in ('mean', 'std'))
    torch.testing.assert_close(_run('torch', path, x), net((x - mean) / std) * 10 + 3, rtol=1e-4, atol=1e-4)


def test_the_command_refuses(tmp_path, capsys):
    resnet.EncoderNet1d(2, [1, 1]).save_pretrained(tmp_path / 'net')
    out = ['--output', str(tmp_path / 'x.onnx')]
    net = str(tmp_path / 'net')
    (tmp_path / 'last.ckpt').mkdir()
    for words, text in (
        ([str(tmp_path / 'none'), *out], 'does not exist'),
        ([str(tmp_path / 'last.ckpt'), *out], 'holds no config.json'),
        ([net, '--normalise', *out], 'holds no normalisation'),
        ([net, '--format', 'torch', '--opset', '18', *out], '--opset needs --format onnx'),
        ([net, '--opset', '0', *out], 'opset=0 must be an int of at least 1'),
        ([net, '--opset', 'x', *out], "invalid int value: 'x'"),
        ([net, '--format', 'tf', *out], "invalid choice: 'tf'"),
        ([net, '--confg', 'x'], 'unrecognized arguments: --confg: '),
        ([net, '--ouput', 'x.onnx'], 'unrecognized arguments: --ouput: did you mean --output?'),
        ([net], 'the following arguments are required: --output'),
        ([net, '--output', str(tmp_path / 'none' / 'x.onnx')], 'must be a file in a folder that is there'),
        ([net, '--output', str(tmp_path / 'x.pt')], 'must end in .onnx'),
        ([net, '--check', '2', *out], 'input size (2,) is too small'),
        ([net, '--check', 'wide', *out], "size='wide' must be"),
    ):
        assert main(['export', *words]) == 2, words
        printed, error = capsys.readouterr()
        assert text in error
        assert error.startswith('mdnc export: error: ')
        assert (printed, error.count('\n')) == ('', 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['last.ckpt', 'net']


def test_the_command_says_by_its_status_that_a_written_file_differs(net, tmp_path, capsys, monkeypatch):
    net.save_pretrained(tmp_path / 'net')
    row = comparison.Compared((1, 2, 9, 9), 0.5, 1e-4)
    monkeypatch.setattr(export, 'check', lambda path, net, sizes: (row,))
    words = ['export', str(tmp_path / 'net'), '--format', 'torch', '--output', str(tmp_path / 'net.pt2'), '--check']
    assert main(words) == 1
    assert capsys.readouterr().out.endswith('5.0e-01 of 1.0e-04 allowed: DIFFERS\n')


def test_the_command_says_by_its_status_that_a_graph_differs(net, tmp_path, capsys, monkeypatch):
    net.save_pretrained(tmp_path / 'net')
    opened = formats.TorchExport.open
    monkeypatch.setattr(
        formats.TorchExport, 'open', lambda self, path: formats.Opened(lambda x: opened(self, path).run(x) + 1, {})
    )
    out = tmp_path / 'net.pt2'
    assert main(['export', str(tmp_path / 'net'), '--format', 'torch', '--output', str(out)]) == 1
    assert 'nothing was written' in capsys.readouterr().err
    assert not out.exists()


NETWORKS = [entry for entry in (*CLASSES, *VARIANTS) if not entry.name.startswith('Block')]


@pytest.mark.slow
@pytest.mark.parametrize('kind', TO)
@pytest.mark.parametrize('entry', NETWORKS, ids=lambda entry: entry.name)
def test_every_network_is_exported(entry, kind, tmp_path):
    # Two minutes in all on two idle cores.
    net = entry.build()
    file = TO[kind](net, tmp_path / f'net{SUFFIX[kind]}')
    torch.testing.assert_close(
        _run(kind, file.path, entry.sample(4)), net.eval()(entry.sample(4)), rtol=1e-3, atol=1e-4
    )


def test_double_precision_is_exported(tmp_path):
    file = export.to_torch_export(resnet.UNet1d(4, [1, 1]).double(), tmp_path / 'net.pt2')
    assert file.difference < 1e-12
    assert {row.allowed for row in file.compared} == {1e-9}


@pytest.mark.slow
@pytest.mark.parametrize('name', ['EncoderNet1d', 'UNet2d'])
def test_a_network_is_compiled_ahead_of_time(name, tmp_path):
    # One to four minutes: C++ is compiled.
    net = getattr(resnet, name)(4, [1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the compiler's own packages
        file = export.to_aotinductor(net, tmp_path / 'net.pt2')
    assert all(row.agrees for row in export.check(file.path, net, [33, 9, 5]))


@pytest.mark.gpu
def test_a_network_is_compiled_for_its_gpu(tmp_path):
    net = resnet.UNet2d(4, [1, 1]).cuda()
    file = mdnc.export.to_aotinductor(net, tmp_path / 'net.pt2')
    assert all(row.agrees for row in export.check(file.path, net, [33, 9]))
