"""Torch without one of its private names: networks take the plain path and say so, and nothing gives wrong results."""

import subprocess
import sys
import textwrap

import pytest

from mdnc import _torch

# Each name is taken away in a child of one process that has imported torch, as it would be by a torch without it:
# torch's own code keeps it, and what looks it up there finds nothing.
SCRIPT = '''
    import os, sys, types, warnings
    import torch
    warnings.simplefilter('ignore')

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
        return [each.detach() for each in found], bool(reasons)

    def child(name, kind, place):
        if os.fork() == 0:
            try:
                values, plain = work(name, kind)
                if place == 'write':
                    torch.save(values, sys.argv[1])
                else:
                    for mine, theirs in zip(values, torch.load(sys.argv[1]), strict=True):
                        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
                    print(name, 'plain' if plain else 'fused', flush=True)
                os._exit(0)
            except BaseException as error:
                print(name, kind.__name__, type(error).__name__, error, file=sys.stderr, flush=True)
                os._exit(1)
        assert os.wait()[1] == 0, name

    child('', Without, 'write')
    for name in sys.argv[2:]:
        child(name, Without, 'read')
        if 'aten' in name and not name.rpartition('.')[2].startswith('_'):
            child(name, Wrong, 'read')
'''
NEEDED = {name.path for name in _torch.NAMES}


def run(folder, names: list[str]) -> dict[str, str]:
    command = [sys.executable, '-c', textwrap.dedent(SCRIPT), str(folder / 'values.pt'), *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(line.split() for line in done.stdout.splitlines())


def test_without_some_private_names(tmp_path):
    names = ['torch.ops.aten.convolution_backward', 'torch._C._functorch.peek_interpreter_stack']
    names += ['torch.ops.mkldnn._linear_pointwise', 'torch._subclasses.fake_tensor.FakeTensorMode']
    found = run(tmp_path, names)
    assert found == {name: 'plain' if name in NEEDED else 'fused' for name in names}


@pytest.mark.slow  # half a minute: a process for each name
def test_without_each_private_name(tmp_path):
    public = {'torch.nn.Module'}  # of which the private parts are needed
    names = sorted(name for name in (_torch.LOOKED_UP | NEEDED) - public if _torch.find(name) is not None)
    found = run(tmp_path, names)
    plain = {name for name in names if name.removesuffix('.default') in NEEDED}
    assert found == {name: 'plain' if name in plain else 'fused' for name in names}


@pytest.mark.parametrize('name', ['torch._inductor.aoti_load_package', 'torch._nowhere.nothing'])
def test_what_is_needed_is_found_or_named(name: str):
    if 'nothing' in name:
        with pytest.raises(RuntimeError, match=r'has no torch\._nowhere\.nothing, which mdnc needs to try'):
            _torch.needed(name, 'try')
    else:
        assert callable(_torch.needed(name, 'try'))
