"""The summary: documented texts, odd modules, and what must stay unchanged."""

import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.catalogue import ENTRIES, identity
from tests.contribs.torchsummary import odd_modules
from torch import nn

from mdnc.contribs.torchsummary import summary, summary_string
from mdnc.modules import resnet

GOLDEN = Path(__file__).parents[2] / 'golden'
ROW = re.compile(r'^ *(?P<name>\S+-\d+)  +(?P<shape>\[[\d, -]*\]|-) +(?P<count>[\d,]+)$', re.MULTILINE)
SHAPE_LINE = re.compile(r'^ {22,}(\[[\d, -]*\])$', re.MULTILINE)


def rows(text):
    """The rows of a table as (name, shape, parameters)."""
    return [(m['name'], m['shape'], int(m['count'].replace(',', ''))) for m in ROW.finditer(text)]


def figure(text, words):
    return float(re.search(re.escape(words) + r': ([\d.,]+)', text)[1].replace(',', ''))


def mixed_net():
    return nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Dropout(), nn.PReLU())


@pytest.mark.parametrize('out_length', [32, None], ids=['out32', 'outnone'])
@pytest.mark.parametrize('device', ['cpu', None, 'meta'])
def test_the_documented_examples_letter_for_letter(capsys, out_length, device):
    net = resnet.EncoderNet2d(64, [2, 2, 2, 2, 2], in_planes=3, out_length=out_length)
    print(f'The number of convolutional layers along the depth is {net.nlayers}.')
    summary(net, (3, 64, 63), device=device)
    name = 'encodernet2d_out32.txt' if out_length else 'encodernet2d_outnone.txt'
    assert capsys.readouterr().out == (GOLDEN / name).read_text()


@pytest.mark.parametrize('entry', ENTRIES, ids=identity)
def test_every_public_network(entry):
    net = entry.build()
    text, counts = summary_string(net, entry.input)
    assert summary_string(net, entry.input, device='meta') == (text, counts)
    name, shape, _ = rows(text)[-1]
    assert (name, shape) == (f'{type(net).__name__}-{len(rows(text))}', str([-1, *entry.output]))
    # Every module of ours is called, and every parameter is in a row.
    assert counts[0] == sum(count for _, _, count in rows(text)) == sum(p.numel() for p in net.parameters())
    plans = [getattr(module, 'plan', None) for module in net.modules()]
    holding = [plan for plan in plans if getattr(plan, 'holds', False)]
    assert len(SHAPE_LINE.findall(text)) == len(holding)


def test_the_text_has_no_closing_newline_and_both_give_the_counts(capsys):
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1).requires_grad_(False))
    text, counts = summary_string(net, (3,))
    assert counts == (21, 16)
    assert text.endswith('-' * 64)
    assert summary(net, (3,)) == counts
    assert capsys.readouterr().out == text + '\n'
    assert 'Non-trainable params: 5\n' in text


@pytest.mark.parametrize('device', [None, 'meta'])
@pytest.mark.parametrize(('wrap', 'shapes'), odd_modules.WRAPS.values(), ids=odd_modules.WRAPS)
def test_outputs_of_any_make(wrap, shapes, device):
    text, counts = summary_string(odd_modules.Returns(wrap), (3,), device=device)
    (_, linear, _), (name, first, _) = rows(text)
    assert (linear, name) == ('[-1, 4]', 'Returns-2')
    assert counts == (16, 16)
    assert [first, *SHAPE_LINE.findall(text)] == (list(map(str, shapes)) or ['-'])


@pytest.mark.filterwarnings('ignore:.*enable_nested_tensor:UserWarning')
@pytest.mark.parametrize('device', [None, 'meta'])
@pytest.mark.parametrize(('make', 'expected'), odd_modules.ROW_PARAMETERS.values(), ids=odd_modules.ROW_PARAMETERS)
def test_every_parameter_is_counted_once(make, expected, device):
    model = make()
    called = set()
    hooks = [module.register_forward_hook(lambda module, *_: called.add(module)) for module in model.modules()]
    text, (total, trainable) = summary_string(model, (4, 3) if expected is None else (3,), device=device)
    for hook in hooks:
        hook.remove()
    assert total == sum(parameter.numel() for parameter in model.parameters())
    assert trainable == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    printed = [count for _, _, count in rows(text)]
    if expected is not None:
        assert printed == expected
    if not isinstance(model, nn.Sequential):
        seen = {parameter for module in called for parameter in module.parameters(recurse=False)}
        never = set(model.parameters()) - seen
        assert sum(printed) + sum(parameter.numel() for parameter in never) == total


def test_containers_leave_no_row_and_long_names_are_cut():
    class Row(nn.Sequential):
        pass

    class AVeryLongNameIndeed(nn.Linear):
        pass

    text, _ = summary_string(Row(nn.Sequential(AVeryLongNameIndeed(3, 3)), *[nn.ReLU()] * 9), (3,))
    names = [name for name, _, _ in rows(text)]
    assert names == ['AVeryLon...eIndeed-1', *(f'ReLU-{number}' for number in range(2, 11))]


@pytest.mark.parametrize('batch_size', [-1, 1, 5])
def test_memory_lines_keep_the_published_formula(batch_size):
    net = nn.Sequential(nn.Linear(300, 500), odd_modules.Returns(lambda y: (y, y)))
    net[1].linear = nn.Linear(500, 700)
    text, (total, _) = summary_string(net, (300,), batch_size)
    batch, mebi = abs(batch_size), 2**20
    inputs, outputs, held = 300 * 4 * batch / mebi, 2 * 4 * batch * (500 + 700 + 2 * 700) / mebi, 4 * total / mebi
    assert rows(text)[0][1] == f'[{batch_size}, 500]'
    assert math.isclose(figure(text, 'Input size (MB)'), inputs, abs_tol=0.0051)
    assert math.isclose(figure(text, 'Forward/backward pass size (MB)'), outputs, abs_tol=0.0051)
    assert math.isclose(figure(text, 'Params size (MB)'), held, abs_tol=0.0051)
    assert math.isclose(figure(text, 'Estimated Total Size (MB)'), inputs + outputs + held, abs_tol=0.0051)


@pytest.mark.parametrize('device', [None, 'meta'])
def test_several_inputs_of_both_kinds_of_dtype(device):
    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 2)

        def forward(self, index, x, mask):
            assert (index.dtype, x.dtype, mask.dtype) == (torch.int64, torch.float64, torch.bool)
            return self.table(index).double() @ x

    dtypes = [torch.LongTensor, torch.float64, torch.BoolTensor]
    text, _ = summary_string(Look(), [(7,), torch.Size([2, 6]), ()], device=device, dtypes=dtypes)
    assert [shape for _, shape, _ in rows(text)] == ['[-1, 7, 2]', '[-1, 7, 6]']


def test_no_input_at_all_and_one_number_a_sample():
    class Constant(nn.Module):
        def forward(self, *inputs):
            return torch.ones(3) * len(inputs)

    assert rows(summary_string(Constant(), [])[0]) == [('Constant-1', '[-1]', 0)]
    assert rows(summary_string(Constant(), [], batch_size=7)[0]) == [('Constant-1', '[7]', 0)]
    assert rows(summary_string(nn.ReLU(), ())[0]) == [('ReLU-1', '[-1]', 0)]


@pytest.mark.filterwarnings('ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning')
def test_nested_tensors_show_their_samples():
    class Masked(nn.Module):  # in eval mode torch packs what is not masked into a nested tensor
        def __init__(self):
            super().__init__()
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)

        def forward(self, x):
            mask = torch.zeros(x.shape[:2], dtype=torch.bool)
            mask[0, 3:] = True
            return self.encoder(x, src_key_padding_mask=mask)

    text, _ = summary_string(Masked().eval(), (5, 8))
    assert rows(text)[-1][1] == '[-1, 5, 8]'
    assert '[3, 8]' in text


def test_models_on_meta():
    with torch.device('meta'):
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert summary_string(net, (3,))[0] == summary_string(net, (3,), device='meta')[0]
    assert next(net.parameters()).is_meta


def test_a_compiled_model_shows_the_calls_of_the_model_in_it():
    net = torch.compile(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), backend='eager')
    text, _ = summary_string(net, (3,))
    assert [name for name, _, _ in rows(text)] == ['Linear-1', 'ReLU-2', 'OptimizedModule-3']


def state_of(model):
    """Everything that a run may change, as comparable values."""
    own = [{**vars(module), '_buffers': dict(module._buffers)} for module in model.modules()]
    hooks = [{key: len(value) for key, value in vars(module).items() if 'hooks' in key} for module in model.modules()]
    numpy_state = torch.tensor(np.random.get_state()[1])  # noqa: NPY002  the global state is what must not change
    return {
        'modes': [module.training for module in model.modules()],
        'objects': [{key: id(value) for key, value in part.items() if key != '_buffers'} for part in own],
        'buffers': [(id(buffer), buffer.clone(), buffer._version) for buffer in model.buffers()],
        'parameters': [(id(p), p.detach().clone(), p.grad, p.requires_grad) for p in model.parameters()],
        'hooks': hooks,
        'random': [torch.get_rng_state(), torch.tensor(random.getstate()[1]), numpy_state],
        'grad mode': torch.is_grad_enabled(),
    }


@pytest.mark.parametrize('device', [None, 'meta'])
@pytest.mark.parametrize(
    'make', [mixed_net, odd_modules.Restless, odd_modules.Raises, lambda: nn.LSTM(3, 4, dropout=0.5, num_layers=2)]
)
def test_nothing_is_changed(make, device):
    model = make()
    list(model.modules())[-1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state_of(model)
    size = (3, 8) if isinstance(model, nn.Sequential) else (7, 3) if isinstance(model, nn.LSTM) else (3,)
    if isinstance(model, odd_modules.Raises):
        with pytest.raises(LookupError, match='no such thing'):
            summary_string(model, size, device=device)
    else:
        summary_string(model, size, device=device)
    torch.testing.assert_close(state_of(model), before, rtol=0, atol=0)


def test_no_graph_is_built_and_a_waiting_one_stays_valid():
    grads = []
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    loss = net.eval()(torch.ones(2, 3)).sum()  # the statistics are kept for the backward pass
    net.train()[1].register_forward_hook(lambda *args: grads.append(args[-1].requires_grad))
    summary_string(net, (3,))
    assert grads == [False]
    loss.backward()
    assert torch.is_grad_enabled()


def test_no_memory_is_needed_on_meta():
    size = (3, 10**6, 10**6)
    text, _ = summary_string(nn.Conv2d(3, 8, 3), size, batch_size=64, device='meta')
    assert rows(text) == [('Conv2d-1', '[64, 8, 999998, 999998]', 224)]


def test_values_asked_for_on_meta_are_explained():
    class Reads(nn.Module):
        def forward(self, x):
            return x * x.sum().item()

    with pytest.raises(RuntimeError, match="summary: with device='meta' there are no values"):
        summary_string(Reads(), (3,), device='meta')


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.LazyLinear(3)


LINEAR = nn.Linear(3, 1)
BAD = {
    'no module': (((lambda x: x), (3,)), {}, TypeError, 'summary: model must be a torch.nn.Module, not function'),
    'lazy module': ((Lazy(), (3,)), {}, ValueError, 'without a shape yet: fc.weight, fc.bias'),
    'a number as size': ((LINEAR, 3), {}, TypeError, 'summary: input_size=3 must be one size'),
    'a word as size': ((LINEAR, '3'), {}, TypeError, "summary: input_size='3' must be one size"),
    'a length of zero': (
        (LINEAR, (3, 0)),
        {},
        ValueError,
        r'input_size=\(3, 0\): length=0 must be an int of at least 1',
    ),
    'a fraction': ((LINEAR, (3.0,)), {}, TypeError, 'length=3.0 must be an int'),
    'a bool': ((LINEAR, (True,)), {}, TypeError, 'length=True must be an int'),
    'size and number mixed': ((LINEAR, [(3,), 3]), {}, TypeError, r'length=\(3,\) must be an int'),
    'empty batch': ((LINEAR, (3,), 0), {}, ValueError, 'summary: batch_size=0 must be at least 1, or -1'),
    'batch of -2': ((LINEAR, (3,), -2), {}, ValueError, 'batch_size=-2 must be'),
    'batch of 2.0': ((LINEAR, (3,), 2.0), {}, TypeError, 'batch_size=2.0 must be'),
    'unknown device': ((LINEAR, (3,)), {'device': 'gpu'}, ValueError, "summary: device='gpu' cannot be used here"),
    'device of no kind': ((LINEAR, (3,)), {'device': 1.5}, TypeError, 'summary: device=1.5 must be a device'),
    'model elsewhere': (
        (nn.Linear(3, 1, device='meta'), (3,)),
        {'device': 'cpu'},
        ValueError,
        r'not where the model is \(meta\)',
    ),
    'one dtype': ((LINEAR, (3,)), {'dtypes': torch.float32}, TypeError, 'must be a sequence of dtypes'),
    'too many dtypes': (
        (LINEAR, (3,)),
        {'dtypes': [torch.float32] * 2},
        ValueError,
        'one dtype for each of the 1 inputs',
    ),
    'no input': ((LINEAR, []), {}, TypeError, r'Linear must take 0 inputs, but its forward has the arguments \(input'),
    'two inputs': ((LINEAR, [(3,), (3,)]), {}, TypeError, 'Linear must take 2 inputs'),
    'a dictionary as size': ((LINEAR, {}), {}, TypeError, r'summary: input_size=\{\} must be one size'),
    'a set as size': ((LINEAR, {3}), {}, TypeError, r'summary: input_size=\{3\} must be one size'),
    'more than is counted': ((LINEAR, (3, 10**20)), {'device': 'meta'}, ValueError, r'has more than 2\^50 values'),
    'a batch beyond counting': ((LINEAR, (3,), 10**20), {}, ValueError, r'an input of shape \(10+, 3\) has more than'),
    'a quantized dtype': ((LINEAR, (3,)), {'dtypes': [torch.quint8]}, ValueError, 'torch.quint8, of which no input'),
    'a dtype of bits': ((LINEAR, (3,)), {'dtypes': [torch.bits8]}, ValueError, 'torch.bits8, of which no input'),
    'a word as dtype': ((LINEAR, (3,)), {'dtypes': ['float32']}, TypeError, "dtypes holds 'float32'"),
}


@pytest.mark.parametrize(('arguments', 'options', 'error', 'words'), BAD.values(), ids=BAD)
def test_bad_arguments_are_named(arguments, options, error, words):
    with pytest.raises(error, match=words):
        summary_string(*arguments, **options)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('device', [None, 'meta'])
def test_networks_of_half_types(dtype, device):
    net = resnet.EncoderNet2d(4, [1, 1])
    text, counts = summary_string(net, (1, 9, 8))
    assert summary_string(net.to(dtype), (1, 9, 8), device=device) == (text, counts)
    with pytest.raises(TypeError, match=f'input has dtype torch.float32, but the parameters have {dtype}'):
        summary_string(net, (1, 9, 8), dtypes=[torch.float32], device=device)


@pytest.mark.parametrize('device', [None, 'meta'])
def test_an_error_of_the_model_is_its_own(device, caplog):
    with pytest.raises(RuntimeError) as caught:
        summary_string(nn.Linear(3, 2), (5,), device=device)
    assert 'no values' not in str(caught.value)
    assert not caplog.records


def test_script_modules_are_refused():
    with pytest.raises(ValueError, match='model holds a ScriptModule'):
        summary_string(nn.Sequential(torch.jit.script(nn.ReLU())), (3,))


@pytest.mark.gpu
def test_models_on_a_gpu():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout()).cuda()
    before, state = torch.cuda.get_rng_state(), {key: value.clone() for key, value in net.state_dict().items()}
    texts = {summary_string(net, (3,), device=device)[0] for device in (None, 'cuda', 'cuda:0', 'meta')}
    assert len(texts) == 1
    assert torch.equal(torch.cuda.get_rng_state(), before)
    torch.testing.assert_close(dict(net.state_dict()), state, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"device='cpu' is not where the model is \(cuda:0\)"):
        summary_string(net, (3,), device='cpu')
