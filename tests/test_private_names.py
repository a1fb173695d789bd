"""Torch without one of its private names: networks take the plain path and say so, and nothing gives wrong results."""

import re
import subprocess
import sys
import textwrap
import zipfile
from typing import Any

import pytest
import torch

import mdnc.export
from mdnc import _torch
from mdnc.modules import resnet

# Each name is taken away in a child of one process that has imported torch, as it would be by a torch without it:
# torch's own code keeps it, and what looks it up there finds nothing.
SCRIPT = '''
    import os, sys, tempfile, warnings
    import torch
    warnings.simplefilter('ignore')
    torch.export.export(torch.nn.ReLU(), (torch.ones(1),))  # loads here, once, what the children use

    class Without:
        """A module of torch, or torch itself, without a name in it."""

        def __init__(self, whole, hidden):
            self.__dict__.update(whole=whole, hidden=hidden)

        def __getattr__(self, name):
            first, _, rest = self.hidden.partition('.')
            if name != first:
                return getattr(self.whole, name)
            if not rest:
                raise AttributeError(name)
            return Without(getattr(self.whole, name), rest)

    class Wrong(Without):
        """The same with another function in its place."""

        def __getattr__(self, name):
            first, _, rest = self.hidden.partition('.')
            if name == first and not rest:
                return lambda *args, **kwargs: torch.ones(1, dtype=torch.float64)
            return getattr(self.whole, name) if name != first else Wrong(getattr(self.whole, name), rest)

    def told(name, job):
        try:
            return job()
        except RuntimeError as error:
            if name in str(error) and '\\n' not in str(error):
                return None  # one sentence, with the name
            raise

    def work(name, kind):
        if name:
            sys.modules['torch'] = kind(torch, name.partition('.')[2])
        import importlib.util
        import mdnc._torch
        sys.modules['torch'] = torch
        import mdnc
        torch.manual_seed(0)
        net = mdnc.modules.resnet.EncoderNet2d(4, [1, 1], activator='gelu', normalizer='batch')
        x, found = torch.randn(2, 1, 9, 9), []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            for each in (net, mdnc.optimize(net)):
                y = each(x)
                found += [y, *torch.autograd.grad(y.square().sum(), list(net.parameters()))]
        said = [str(each.message) for each in caught if 'mdnc' in str(each.message)]
        reasons = {each.reason for each in net.paths()} - {''}
        if reasons:
            assert len(said) == len(reasons) == 1, (said, reasons)
            whole = name.removesuffix('.default')  # an operator without its overload does not do what it did
            assert whole in said[0] or 'torch.nn.Module' in name, said
        shown = told(name, lambda: mdnc.contribs.torchsummary.summary_string(net, (1, 9, 9))[0])
        told(name, lambda: mdnc.analysis.memory_forecast(net, (1, 9, 9), 2))
        assert shown is None or 'EncoderNet2d' in shown
        if kind is Without and 'aten' not in name:  # an exporter sees torch's own layers
            told(name, lambda: export(net.eval(), x))
        return [each.detach() for each in found], bool(reasons)

    def export(net, x):
        import mdnc.export
        with tempfile.TemporaryDirectory() as folder:
            # Compares what the file gives with what the network gives.
            file = mdnc.export.to_torch_export(net, folder + '/net.pt2')
            assert torch.export.load(file.path).module()(x).shape == net(x).shape

    def child(name, kind, place):
        if os.fork() == 0:
            try:
                values, plain = work(name, kind)
                if place == 'write':
                    torch.save(values, sys.argv[1])
                else:
                    for mine, theirs in zip(values, torch.load(sys.argv[1]), strict=True):
                        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
                    print(name, kind.__name__, 'plain' if plain else 'fused', flush=True)
                os._exit(0)
            except BaseException as error:
                print(name, kind.__name__, type(error).__name__, error, file=sys.stderr, flush=True)
                os._exit(1)
        assert os.wait()[1] == 0, name

    child('', Without, 'write')
    for name in sys.argv[2:]:
        for kind in (Without,) if 'aten' in name else (Without, Wrong):
            child(name, kind, 'read')
'''
PROVED = {name.path: name.needed for name in _torch.NAMES}


def taken(folder, names: list[str]) -> dict[tuple[str, str], str]:
    """Which path a network takes without each name, and with something else of that name."""
    command = [sys.executable, '-c', textwrap.dedent(SCRIPT), str(folder / 'values.pt'), *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return {(name, kind): path for name, kind, path in map(str.split, done.stdout.splitlines())}


def expected(names: list[str]) -> dict[tuple[str, str], str]:
    found = {}
    for name in names:
        whole = name.removesuffix('.default')
        found[name, 'Without'] = 'plain' if PROVED.get(whole, False) else 'fused'
        if 'aten' not in name:  # the proofs of operators are tested below, by themselves
            found[name, 'Wrong'] = 'plain' if whole in PROVED else 'fused'
    return found


def test_without_some_private_names(tmp_path):
    names = ['torch.ops.aten.convolution_backward', 'torch._C._functorch.peek_interpreter_stack']
    names += ['torch.ops.mkldnn._linear_pointwise', 'torch._subclasses.fake_tensor.FakeTensorMode']
    assert taken(tmp_path, names) == expected(names)


@pytest.mark.slow  # a minute: processes for each name
def test_without_each_private_name(tmp_path):
    public = {'torch.nn.Module'}  # of which the private parts are needed
    later = {'torch.fx.experimental._config.patch'}  # looked up by an export
    every = _torch.LOOKED_UP | PROVED.keys() | later
    names = sorted(name for name in every - public if _torch.find(name) is not None)
    assert taken(tmp_path, names) == expected(names)


def twice(found: Any) -> Any:
    def op(*args: Any) -> Any:
        got = found(*args)
        return 2 * got if isinstance(got, torch.Tensor) else [each if each is None else 2 * each for each in got]

    return op


def backwards(found: Any) -> Any:
    def op(*args: Any) -> Any:
        got = found(*args)
        got = got if isinstance(got, (tuple, list)) else [got]
        return [each if each is None else each.flatten().flip(0).view(each.shape) for each in got]

    return op


def other(*args: Any, **kwargs: Any) -> torch.Tensor:
    return torch.ones(1, dtype=torch.float64)


OTHERWISE = {
    'gives another shape': lambda found: other,
    'gives twice as much': twice,
    'gives it in another order': backwards,
    'gives nothing': lambda found: lambda *args: None,
    'takes other arguments': lambda found: lambda: found,
    'is no function': lambda found: 'something else',
}
QUESTIONS = ['torch._C._get_tracing_state', 'torch._C._functorch.peek_interpreter_stack']
REGISTRIES = [name for name in PROVED if name.startswith('torch.nn.modules.module')]


def told(name: str, instead: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the proof finds that this name stands for something else, and says its name."""
    find = _torch.find
    with monkeypatch.context() as patch:
        patch.setattr(_torch, 'find', lambda path: instead if path == name else find(path))
        return _torch.first_wrong() == f'{name} of torch {torch.__version__} does not do what it did'


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_what_is_found_does_not_depend_on_the_default_dtype(dtype: torch.dtype):
    torch.set_default_dtype(dtype)
    try:
        assert _torch.first_wrong() == ''
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize('otherwise', OTHERWISE)
def test_an_operator_that_behaves_otherwise_is_found(otherwise: str, monkeypatch: pytest.MonkeyPatch):
    operators = [name for name in PROVED if name.startswith('torch.ops')]
    instead = {name: OTHERWISE[otherwise](_torch.find(name)) for name in operators}
    assert [name for name in operators if not told(name, instead[name], monkeypatch)] == []


@pytest.mark.parametrize(
    'instead', [lambda: None, lambda: 1, lambda x: x, 0], ids=['never', 'always', 'asks', 'number']
)
def test_a_question_with_another_answer_is_found(instead: Any, monkeypatch: pytest.MonkeyPatch):
    assert [name for name in QUESTIONS if not told(name, instead, monkeypatch)] == []


@pytest.mark.parametrize('instead', [0, 'no level', []], ids=str)
def test_state_of_another_kind_is_found(instead: Any, monkeypatch: pytest.MonkeyPatch):
    assert [name for name in REGISTRIES if not told(name, instead, monkeypatch)] == []
    assert told('torch.autograd.forward_ad._current_level', instead, monkeypatch)
    assert told('torch.nn.Module', type(instead), monkeypatch)


@pytest.mark.parametrize('name', [name for name, needed in PROVED.items() if not needed])
def test_what_has_a_substitute_may_be_missing(name: str, monkeypatch: pytest.MonkeyPatch):
    find = _torch.find
    monkeypatch.setattr(_torch, 'find', lambda path: None if path == name else find(path))
    assert _torch.first_wrong() == ''


CPP = 'torch._inductor.cpp_builder.get_cpp_compiler'
COMPILES = ['torch._inductor.exc.InvalidCxxCompiler', CPP, 'torch._inductor.aoti_compile_and_package']


@pytest.mark.parametrize(
    ('name', 'instead'),
    [(name, None) for name in COMPILES] + [(name, other) for name in COMPILES if name != CPP],
)
def test_ahead_of_time_without_a_private_name(name: str, instead: Any, tmp_path, monkeypatch: pytest.MonkeyPatch):
    find = _torch.find
    monkeypatch.setattr(_torch, 'find', lambda path: instead if path == name else find(path))
    with pytest.raises(RuntimeError, match=re.escape(name)):
        mdnc.export.to_aotinductor(resnet.EncoderNet1d(2, [1, 1]), tmp_path / 'net.pt2')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('instead', [None, other], ids=['missing', 'otherwise'])
def test_opening_without_a_private_name(instead: Any, tmp_path, monkeypatch: pytest.MonkeyPatch):
    path, find, name = tmp_path / 'net.pt2', _torch.find, 'torch._inductor.aoti_load_package'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('net/data/aotinductor/net.so', '')
    monkeypatch.setattr(_torch, 'find', lambda path: instead if path == name else find(path))
    with pytest.raises(ValueError, match=re.escape(name)):
        mdnc.export.check(path, resnet.EncoderNet1d(2, [1, 1]))


@pytest.mark.parametrize('name', ['torch._inductor.aoti_load_package', 'torch._nowhere.nothing'])
def test_what_is_needed_is_found_or_named(name: str):
    if 'nothing' in name:
        with pytest.raises(RuntimeError, match=r'has no torch\._nowhere\.nothing, which mdnc needs to try'):
            _torch.needed(name, 'try')
    else:
        assert callable(_torch.needed(name, 'try'))
