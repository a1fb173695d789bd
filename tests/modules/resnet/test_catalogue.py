"""What holds for every public module, at odd sizes and with a batch of one."""

import copy
import io
import pickle

import pytest
import torch
from tests.catalogue import CLASSES, ENTRIES, NETWORKS, PRESETS, VARIANTS, Entry, identity
from torch import nn

from mdnc.modules import resnet

every = pytest.mark.parametrize('entry', ENTRIES, ids=identity)
every_class = pytest.mark.parametrize('entry', [*CLASSES, *VARIANTS], ids=identity)


def test_the_catalogue_lists_every_public_module():
    assert {entry.name for entry in ENTRIES} == set(resnet.__all__)


@every
def test_output_shape_and_dtype(entry: Entry):
    net = entry.build()
    for batch in (1, 2):
        y = net(entry.sample(batch))
        assert y.shape == (batch, *entry.output)
        assert y.dtype == torch.float32


@every_class
def test_gradient_reaches_every_parameter_and_the_input(entry: Entry):
    net, x = entry.build().double(), entry.sample(dtype=torch.float64).requires_grad_()
    y = net(x)
    # A random direction: the mean over a plane behind an instance norm has no gradient (LESSONS of that norm).
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead


@every_class
def test_train_and_eval_agree(entry: Entry):
    # Only a batch norm has running statistics, and nothing else in these networks depends on the mode.
    net, x = entry.build(), entry.sample()
    trained = net.train()(x)
    same = torch.allclose(net.eval()(x), trained, rtol=1e-4, atol=1e-5)
    assert same != any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())


@every_class
def test_copies_give_the_same(entry: Entry):
    net, x = entry.build(), entry.sample()
    saved = io.BytesIO()
    torch.save(net.state_dict(), saved)
    saved.seek(0)
    torch.manual_seed(7)
    loaded = getattr(resnet, entry.name)(**entry.arguments)
    loaded.load_state_dict(torch.load(saved, weights_only=True), strict=True)
    expected = net(x)
    for other in (loaded, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x), expected)


@pytest.mark.parametrize('entry', [*NETWORKS, *PRESETS], ids=identity)
def test_the_configuration_rebuilds_the_network(entry: Entry):
    net = entry.build()
    again = type(net)(**net.config)
    assert again.config == net.config
    assert [(k, v.shape) for k, v in again.state_dict().items()] == [(k, v.shape) for k, v in net.state_dict().items()]


@every
def test_repr_names_the_class(entry: Entry):
    net = entry.build()
    assert repr(net).startswith(type(net).__name__)


@every_class
def test_channels_last_gives_the_same(entry: Entry):
    net, x = entry.build(), entry.sample()
    if x.dim() not in (4, 5):
        assert x.dim() in (2, 3)
        return
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    torch.testing.assert_close(net.to(memory_format=layout)(x.to(memory_format=layout)), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@every_class
def test_autocast_takes_float32_and_the_lower_dtype(entry: Entry, dtype: torch.dtype):
    net, x = entry.build(), entry.sample()
    with torch.autocast('cpu', dtype):
        for given in (x, x.to(dtype)):
            assert net(given).isfinite().all()


@every_class
def test_lower_precision_and_double(entry: Entry):
    for dtype in (torch.float64, torch.bfloat16):
        y = entry.build().to(dtype)(entry.sample(dtype=dtype))
        assert y.dtype == dtype and y.isfinite().all()


@pytest.mark.parametrize('name', sorted(set(resnet.__all__)))
def test_help_has_every_argument(name: str):
    # A face has a sentence of its own and the words of the generic class; a preset points to its class.
    text = getattr(resnet, name).__doc__
    assert text and not text.startswith('_')
    if name[0].isupper():
        assert 'Args:' in text and 'Raises:' in text
