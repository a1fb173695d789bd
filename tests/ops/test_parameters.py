"""What is done with the parameters of an optimized network is what can be done with those of any other."""

import copy
import io
import pickle

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, prune, vector_to_parameters
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import mdnc
from mdnc.modules.resnet import UNet1d, UNet2d, UNet3d

NETWORKS = {1: UNet1d, 2: UNet2d, 3: UNet3d}
SIZES = {1: (16,), 2: (16, 12), 3: (8, 8, 8)}


def pair(order: int = 2) -> tuple[nn.Module, nn.Module, Tensor]:
    """An optimized network, one like it, and an input; in float64, where no value falls to a kink's other side."""
    net = NETWORKS[order](4, [1, 1]).double()
    return mdnc.optimize(copy.deepcopy(net)), net, torch.randn(2, 1, *SIZES[order], dtype=torch.float64)


def step(net: nn.Module, x: Tensor) -> Tensor:
    loss: Tensor = net(x).square().mean()
    loss.backward()
    return loss


def assert_same(mine: nn.Module, theirs: nn.Module) -> None:
    ours, others = mine.state_dict(), theirs.state_dict()
    assert list(ours) == list(others)
    torch.testing.assert_close(ours, others, rtol=1e-6, atol=1e-9)


def test_optimize_leaves_parameters_and_gradients_where_and_as_they_are():
    net = UNet2d(4, [1, 1])
    step(net, torch.randn(2, 1, 16, 12))

    def facts() -> list[tuple[object, ...]]:
        both = [each for own in net.parameters() for each in (own, own.grad)]
        return [(id(each), each.data_ptr(), each.stride(), each._version) for each in both]

    before = facts()
    mdnc.optimize(net)
    assert facts() == before
    mdnc.restore(net)
    assert facts() == before


@pytest.mark.parametrize('order', NETWORKS)
def test_gradients_lie_as_their_parameters(order):
    mine, theirs, x = pair(order)
    for net in (mine, theirs):
        step(net, x)
    for own, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert own.grad.stride() == own.stride() == other.grad.stride()
        torch.testing.assert_close(own.grad.view(-1), other.grad.view(-1))
    for own, grad in zip(mine.parameters(), torch.autograd.grad(mine(x).sum(), list(mine.parameters())), strict=True):
        assert grad.stride() == own.stride()


def test_optimizers_that_flatten():
    mine, theirs, x = pair()
    for net in (mine, theirs):
        optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=3)

        def closure(net: nn.Module = net, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            return step(net, x).detach()  # torch 2.8 warns of others

        optimizer.step(closure)
    assert_same(mine, theirs)


def test_vectors_of_parameters():
    mine, theirs, x = pair()
    vector = parameters_to_vector(mine.parameters())
    assert torch.equal(vector, parameters_to_vector(theirs.parameters()))
    vector_to_parameters(vector.detach() * 2, mine.parameters())
    vector_to_parameters(vector.detach() * 2, theirs.parameters())
    torch.testing.assert_close(mine(x), theirs(x))


def test_values_changed_behind_autograd_are_the_ones_used():
    mine, theirs, x = pair()
    mine(x)
    for net in (mine, theirs):
        for own in net.parameters():
            own.data.mul_(1.5)  # raises no version
    torch.testing.assert_close(mine(x), theirs(x))


def test_pruning():
    mine, theirs, x = pair()
    for net in (mine, theirs):
        chosen = [(each, 'weight') for each in net.modules() if isinstance(each, nn.Conv2d)]
        prune.global_unstructured(chosen, prune.L1Unstructured, amount=0.3)
        step(net, x)
    torch.testing.assert_close(mine(x), theirs(x))
    for net in (mine, theirs):
        for each, name in [(each, 'weight') for each in net.modules() if isinstance(each, nn.Conv2d)]:
            prune.remove(each, name)
    torch.testing.assert_close(mine(x), theirs(x))


def test_files_and_copies(tmp_path):
    mine, theirs, x = pair()
    want = theirs(x)
    safetensors.torch.save_file(mine.state_dict(), tmp_path / 'net.safetensors')
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / 'net.safetensors'))
    file = io.BytesIO()
    torch.save(mine, file)
    file.seek(0)
    copies = [copy.deepcopy(mine), pickle.loads(pickle.dumps(mine)), torch.load(file, weights_only=False), theirs]
    for each in copies:
        torch.testing.assert_close(each(x), want)
        assert all(own.is_contiguous() for own in each.parameters())
    mine.load_state_dict({name: value * 2 for name, value in mine.state_dict().items()}, assign=True)
    theirs.load_state_dict({name: value * 2 for name, value in theirs.state_dict().items()})
    torch.testing.assert_close(mine(x), theirs(x))


def test_averages_of_weights():
    mine, theirs, x = pair()
    averages = [AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5)) for net in (mine, theirs)]
    for net, average in zip((mine, theirs), averages, strict=True):
        step(net, x)
        torch.optim.SGD(net.parameters(), lr=0.1).step()
        average.update_parameters(net)
    assert_same(*averages)
    torch.testing.assert_close(averages[0](x), averages[1](x))


def test_gradients_add_up_over_optimize_and_restore():
    mine, theirs, x = pair()
    mdnc.restore(mine)
    step(mine, x)
    step(mdnc.optimize(mine), x)
    step(mdnc.restore(mine), x)
    for _ in range(3):
        step(theirs, x)
    for own, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_weights_that_the_user_laid_stay_so():
    _, theirs, x = pair()
    mine = mdnc.optimize(copy.deepcopy(theirs).to(memory_format=torch.channels_last))
    for net in (mine, theirs):
        step(net, x)
    for own, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)
        if own.dim() > 1:
            for each in (own, own.grad):
                assert each.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('make', [NETWORKS[2], mdnc.modules.resnet.EncoderNet2d, mdnc.modules.resnet.BlockPlain2d])
def test_outputs_lie_as_torchs_layers_would_leave_them(make):
    # Wide enough that channels last are taken inside.
    words = {'out_planes': 3} if make is NETWORKS[2] else {'out_length': None}
    net = make(16, 16) if make is mdnc.modules.resnet.BlockPlain2d else make(16, [1, 1], in_planes=16, **words)
    fast = mdnc.optimize(copy.deepcopy(net))
    x = torch.randn(2, 16, 24, 20)
    y = fast(x)
    assert y.is_contiguous() and y.stride() == net(x).stride()
    torch.testing.assert_close(y.view(-1), net(x).view(-1), rtol=1e-4, atol=1e-4)
    y.view(-1).sum().backward()
