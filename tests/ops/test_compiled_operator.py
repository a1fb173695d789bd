"""The operator under torch.compile: one node a block, equal results, the memory that its level promises."""

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend

import mdnc
from mdnc.modules.resnet import BlockPlain1d, EncoderNet1d, EncoderNet2d, UNet1d, UNet2d, UNet3d
from mdnc.ops import definition, library, norm_act_conv, path
from mdnc.ops.definition import Block, Norm
from mdnc.ops.units import Statistics
from tests.ops.cases import CASES, Case, flat, laid_out

# What torch's compiler itself warns of; the second, from torch 2.15 on, it keeps from being shown.
pytestmark = [
    pytest.mark.filterwarnings('ignore::DeprecationWarning'),
    pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning'),
]


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Graphs:
    """A backend that runs the graphs as they are and remembers them."""

    def __init__(self) -> None:
        self.seen: list[fx.GraphModule] = []

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.seen.append(graph)
        return graph.forward

    def boxed(self, graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        """The same, as ``aot_autograd`` has it."""
        return make_boxed_func(self(graph, inputs))

    def operators(self) -> list[int]:
        """How many nodes of each graph are the operator's, forward or backward."""
        found, self.seen = [operators(each) for each in self.seen], []
        return found


def operators(graph: fx.GraphModule) -> int:
    return sum('mdnc' in str(node.target) for node in graph.graph.nodes)


def agree(graphs: Graphs, counts: list[int]) -> None:
    """The graphs since have so many operators, or none where torch is too old to trace them."""
    found = graphs.operators()
    assert found == counts if path.COMPILES else not any(found), found


def grads(run: Callable[[Tensor], Tensor], net: nn.Module, x: Tensor) -> list[Tensor]:
    wanted = [each for each in (x, *net.parameters()) if each.requires_grad]
    return list(torch.autograd.grad(run(x).square().sum(), wanted))


Arguments = tuple[Tensor, list[Tensor], list[Tensor], str]


def arguments(case: Case, x: Tensor, *way: Any) -> Arguments:
    """What ``library.block`` hands to its operator."""
    caught: list[Any] = []

    def catch(*given: Any) -> list[Tensor]:
        caught.append(given)
        return [x]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, '_forward', catch)
        library.block(x, case.weights(x.dtype), case.how, *way)
    return caught[0]


def check(x: Tensor, weights: list[Tensor], statistics: list[Tensor], plan: str, updated: int = 0) -> None:
    """Have torch check both operators on these arguments, for all gradients and for some."""
    torch.library.opcheck(library._forward, (x, weights, statistics, plan))
    y, *rest = library._forward(x, weights, statistics, plan)
    kept = rest[updated:]
    x, *weights = (each.detach() for each in (x, *weights))
    kept = [each.detach() for each in kept]
    for needs in ([True] * (1 + len(weights)), [at % 3 > 0 for at in range(1 + len(weights))]):
        torch.library.opcheck(library._backward, (torch.randn_like(y), x, weights, kept, plan, needs))


@pytest.mark.parametrize('memory', ['fast', 'least'])
@pytest.mark.parametrize(
    'case', [each for each in CASES if each.order == 1 or each.name == 'up2d'], ids=lambda c: c.name
)
def test_operators_are_what_torch_asks_of_one(case: Case, memory: str):
    x = case.input(layout='channels last' if case.order > 1 else 'contiguous')
    check(*arguments(case, x, memory))


@pytest.mark.parametrize('name', ['down1d', 'identity2d'])
def test_so_they_are_with_compiled_kernels(name: str):
    case = next(each for each in CASES if each.name == name)
    check(*arguments(case, case.input(torch.float32), 'fast', 'optimized'))


def batch_normed(how: Block, kind: str) -> Block:
    units = tuple(each if each.norm is None else replace(each, norm=Norm(kind)) for each in how.units)
    return replace(how, units=units, shortcut=how.shortcut and replace(how.shortcut, norm=Norm(kind)))


@pytest.mark.parametrize('kind', ['batch', 'fixed'])
@pytest.mark.parametrize('memory', ['fast', 'leaner'])
@pytest.mark.parametrize('name', ['down2d', 'conv first1d'])
def test_so_they_are_with_batch_norms(name: str, memory: str, kind: str):
    case = next(each for each in CASES if each.name == name)
    case = replace(case, how=batch_normed(case.how, kind))
    seen = []
    for own, unit in zip(case.weights(), (*case.how.units, case.how.shortcut), strict=False):
        counts = (torch.tensor(3), 0.1) if kind == 'batch' else ()
        normed = unit.norm is not None and own.scale is not None
        mean = torch.rand(len(own.scale) if normed else 1, dtype=torch.float64)
        seen.append(Statistics(mean, mean + 0.5, *counts) if normed else None)
    updated = 3 * sum(each is not None for each in seen) if kind == 'batch' else 0
    check(*arguments(case, case.input(), memory, 'torch', seen), updated)


def trained(net: nn.Module, run: Callable[[Tensor], Tensor], steps: int = 3) -> list[Tensor]:
    """Outputs, gradients, statistics and weights of some steps of training, and outputs in eval."""
    numbers, found = torch.Generator().manual_seed(5), list[Tensor]()
    for _ in range(steps):
        x = torch.randn(3, 1, 9, 8, generator=numbers, dtype=torch.float64, requires_grad=True)
        y = run(x)
        net.zero_grad()
        y.square().mean().backward()
        with torch.no_grad():
            for each in net.parameters():
                each.sub_(0.1 * each.grad)
        found += [y.detach(), x.grad, *(each.grad for each in net.parameters())]
        found += [each.clone() for each in net.buffers()]
    net.eval()
    with torch.no_grad():
        return [*found, run(x), *net.state_dict().values()]


@pytest.mark.parametrize(
    ('memory', 'order', 'change'),
    [
        ('lean', 'new', 'none'),
        ('least', 'new', 'average over all batches'),
        ('fast', 'old', 'none'),
        ('lean', 'old', 'no statistics'),
        ('lean', 'new', 'one frozen'),
    ],
)
def test_batch_norms_are_those_of_eager_torch(memory: str, order: str, change: str):
    net = UNet2d(4, [1, 1], normalizer='batch', layer_order=order, memory=memory).double()
    norms = [each for each in net.modules() if isinstance(each, nn.BatchNorm2d)]
    for each in norms:
        if change == 'average over all batches':
            each.momentum = None
        if change == 'no statistics':
            each.track_running_stats, each.running_mean, each.running_var = False, None, None
    if change == 'one frozen':
        norms[1].eval()
    other, forward, backward = copy.deepcopy(net), Graphs(), Graphs()
    backend = aot_autograd(fw_compiler=forward.boxed, bw_compiler=backward.boxed)
    whole = path.COMPILES or change != 'average over all batches'  # torch's own layer takes a number out of a tensor
    got = trained(net, torch.compile(net, backend=backend, fullgraph=whole))
    blocks = len({each.unit.rpartition('.')[0] for each in net.paths()})
    agree(forward, [blocks + OUTER, blocks + OUTER])  # in training, and in eval
    agree(backward, [blocks + OUTER])
    with mdnc.ops.plain():
        wants = trained(other, other)
    torch.testing.assert_close(got, wants)


@pytest.mark.parametrize('memory', path.MEMORY_LEVELS[1:])
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_operators_equal_the_definition(case: Case, memory: str):
    for layout in ('contiguous', 'channels last'):
        x, weights = case.input(layout=layout), case.weights()
        want = definition.block(x, weights, case.how)
        got = library.block(x, weights, case.how, memory)
        torch.testing.assert_close(got, want)
        g = torch.randn_like(want)
        each, other = (torch.autograd.grad(y, (x, *flat(weights)), g) for y in (got, want))
        torch.testing.assert_close(each, other)


OUTER = 2  # the first and the last convolution


def test_one_node_a_block_forward_and_one_backward():
    forward, backward, net = Graphs(), Graphs(), UNet2d(4, [1, 2, 1])
    backend = aot_autograd(fw_compiler=forward.boxed, bw_compiler=backward.boxed)
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    compiled(torch.randn(2, 1, 20, 18)).sum().backward()
    blocks = len({each.unit.rpartition('.')[0] for each in net.paths()})
    inside = Counter(str(node.target) for each in (*forward.seen, *backward.seen) for node in each.graph.nodes)
    assert any('norm' in name or 'prelu' in name for name in inside) != path.COMPILES
    agree(forward, [blocks + OUTER])
    agree(backward, [blocks + OUTER])


@pytest.mark.parametrize('memory', path.MEMORY_LEVELS)
@pytest.mark.parametrize(
    ('make', 'size'),
    [
        (lambda: EncoderNet1d(4, [2, 1], out_length=3), (19,)),
        (lambda: UNet2d(4, [1, 1], 'plain'), (9, 12)),
        (lambda: UNet3d(4, [1, 1]), (6, 5, 8)),
    ],
)
def test_results_and_gradients_are_those_of_the_plain_path(make, size: tuple[int, ...], memory: str):
    net = make().double()
    net.memory = memory
    x = torch.randn(2, 1, *size, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(net, backend='aot_eager', fullgraph=True)
    with mdnc.ops.plain():
        y, want = net(x), grads(net, net, x)
    torch.testing.assert_close(compiled(x), y)
    torch.testing.assert_close(grads(compiled, net, x), want)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), y)


def test_only_what_is_trained_gets_gradients():
    net = EncoderNet2d(4, [1, 1]).double().requires_grad_(False)
    net.netbody[1].requires_grad_()
    x = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    compiled = torch.compile(net, backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(grads(compiled, net, x), grads(net, net, x))


def kept_bytes(run: Callable[[Tensor], Tensor], net: nn.Module, x: Tensor) -> int:
    """Bytes of the storages that autograd keeps beside input and parameters."""
    seen, known = {}, {each.untyped_storage().data_ptr() for each in (x, *net.parameters())}

    def pack(each: Tensor) -> Tensor:
        storage = each.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = storage.nbytes()
        return each

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each):
        run(x)
    return sum(seen.values())


@pytest.mark.parametrize('norm', ['pinst', 'batch'])
def test_keeps_what_the_level_says(norm: str):
    net, x = EncoderNet2d(8, [2, 2], normalizer=norm), torch.randn(4, 1, 64, 64)
    with mdnc.ops.plain():
        plainly = kept_bytes(net, net, x)
    for level, share in {'fast': 0.75, 'lean': 0.45, 'leaner': 0.3, 'least': 0.2}.items():
        net.memory = level
        compiled = torch.compile(net, backend='aot_eager', fullgraph=True)
        kept = kept_bytes(compiled, net, x)
        if path.COMPILES:
            assert kept <= share * plainly, level
            assert kept <= 1.05 * kept_bytes(net, net, x), level
        else:
            assert kept <= plainly, level


def test_nothing_is_kept_where_there_is_no_backward():
    net, graphs = EncoderNet1d(4, [1, 1]), Graphs()
    compiled = torch.compile(net, backend=graphs, fullgraph=True)
    outputs = []
    for context in (torch.enable_grad, torch.no_grad):
        with context():
            compiled(torch.randn(2, 1, 16))
        nodes = graphs.seen[-1].graph.nodes
        outputs.append([len(node.meta['example_value']) for node in nodes if 'mdnc.block' in str(node.target)])
    # A block: the output, two inputs, and the moments of three units and a shortcut. Convolutions alone: the output.
    assert outputs == ([[1, 11, 11, 1], [1, 1, 1, 1]] if path.COMPILES else [[], []])


@pytest.mark.parametrize('dynamic', [True, None])
def test_another_batch_compiles_nothing_anew(dynamic: bool | None):
    net = UNet2d(4, [1, 1])
    graphs = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(net, backend=graphs, fullgraph=True, dynamic=dynamic)
    counts = []
    for batch in (2, 3, 5, 8):
        x = torch.randn(batch, 1, 9, 12)
        y = compiled(x)
        y.sum().backward()
        torch.testing.assert_close(y, net(x), rtol=1e-4, atol=1e-5)
        counts.append(graphs.frame_count)
    assert len(set(counts[1:])) == 1


def test_other_sizes_compile_nothing_anew():
    net = UNet1d(4, [1, 1]).double()
    graphs = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(net, backend=graphs, fullgraph=True, dynamic=True)
    counts = []
    for size in (17, 12, 31):
        x = torch.randn(2, 1, size, dtype=torch.float64)
        torch.testing.assert_close(grads(compiled, net, x), grads(net, net, x))
        counts.append(graphs.frame_count)
    assert len(set(counts)) == 1


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
@pytest.mark.parametrize('make', [lambda: BlockPlain1d(2, 2), lambda: BlockPlain1d(2, 3, stride=2)])
def test_autocast_is_that_of_the_plain_path(make, backend: str):
    torch.manual_seed(0)
    net, x = make(), torch.randn(2, 2, 50)

    def run() -> tuple[Tensor, list[Tensor]]:
        compiled = torch.compile(net, backend=backend, fullgraph=True)
        with torch.autocast('cpu', torch.bfloat16):
            y = compiled(x)
        return y, list(torch.autograd.grad(y.float().square().sum(), list(net.parameters())))

    y, got = run()
    with mdnc.ops.plain():
        want_y, want = run()
    assert y.dtype == want_y.dtype
    torch.testing.assert_close(y, want_y, rtol=0.05, atol=0.05)
    for each, other in zip(got, want, strict=True):
        assert each.dtype == other.dtype == torch.float32
        assert (each - other).norm() <= 0.05 * other.norm() + 0.01


def test_the_choice():
    net, graphs, x = EncoderNet1d(4, [1, 1]), Graphs(), torch.randn(2, 1, 16)
    compiled = torch.compile(net, backend=graphs, fullgraph=True)
    with mdnc.ops.plain():
        compiled(x)
    agree(graphs, [0])
    compiled(x)  # what was compiled plainly is not taken for it
    agree(graphs, [4])  # two blocks and two convolutions
    with mdnc.ops.plain():
        compiled(x)
    agree(graphs, [])  # neither is that compiled anew
    for level in path.MEMORY_LEVELS:
        net.memory = level
        compiled(x)
        agree(graphs, [0] if level == 'plain' else [4] if level != 'lean' else [])


def test_transforms_hooks_and_exports_see_the_layers():
    net, graphs, x = EncoderNet1d(4, [1, 1]), Graphs(), torch.randn(2, 1, 16)
    torch.compile(lambda x: torch.func.vjp(net, x)[0], backend=graphs, fullgraph=True)(x)
    torch.compile(lambda x: torch.func.vmap(lambda each: net(each))(x), backend=graphs, fullgraph=True)(x[None])
    agree(graphs, [0, 0])
    for strict in (False, True):
        assert not operators(torch.export.export(net, (x,), strict=strict).graph_module)
    block = BlockPlain1d(3, 3)
    block.conv2[1].register_forward_hook(lambda *args: None)
    torch.compile(block, backend=graphs, fullgraph=True)(torch.randn(2, 3, 8))
    agree(graphs, [1])


def test_symbolic_arguments_are_left_to_the_compiler():
    graphs, kernel = Graphs(), torch.randn(4, 3, 3)

    def double(x: Tensor) -> Tensor:
        return norm_act_conv(x, kernel, activator='relu', padding=1, size=2 * x.shape[2])

    compiled = torch.compile(double, backend=graphs, fullgraph=True, dynamic=True)
    for length in (8, 9):
        x = torch.randn(2, 3, length)
        torch.testing.assert_close(compiled(x), double(x))
    agree(graphs, [0])


def test_a_gradient_of_the_gradient_is_refused_by_torch():
    net = BlockPlain1d(3, 3)
    x = torch.randn(2, 3, 8, requires_grad=True)
    (gx,) = torch.autograd.grad(torch.compile(net, backend='eager')(x).sum(), x, create_graph=True)
    refused = pytest.raises(RuntimeError, match=r'mdnc.block_backward.* no autograd formula')
    with refused if path.COMPILES else nullcontext():
        gx.sum().backward()


def test_what_a_network_must_do_it_still_does():
    net, x = EncoderNet1d(4, [1, 1], memory='leaner'), torch.randn(2, 1, 16)
    compiled = torch.compile(net, backend='aot_eager', fullgraph=True)
    y = compiled(x)
    for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), copy.deepcopy(compiled)):
        torch.testing.assert_close(again(x), y)
    other = EncoderNet1d(4, [1, 1])
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(x), y)


@pytest.mark.parametrize('memory', ['fast', 'lean'])
def test_inductor_and_optimized_networks(memory: str):
    net = mdnc.optimize(UNet2d(4, [1, 1], memory=memory).double())
    x = laid_out(torch.randn(2, 1, 12, 9, dtype=torch.float64), 'channels last')
    compiled = torch.compile(net, fullgraph=True)
    y = compiled(x)
    torch.testing.assert_close(y, net(x), rtol=1e-9, atol=1e-9)
    for got, want in zip(grads(compiled, net, x), grads(net, net, x), strict=True):
        assert (got - want).norm() <= 1e-9 * want.norm() + 1e-9


FIRST_OF_A_PROCESS = """
    import torch, mdnc
    net = mdnc.optimize(mdnc.modules.resnet.UNet1d(4, [1, 1], normalizer='batch', activator='leaky_relu'))
    kernel = torch.randn(4, 1, 3)
    layer = lambda x: mdnc.ops.norm_act_conv(x, kernel, activator='relu')
    with torch._dynamo.config.patch(error_on_recompile=True):
        for run in (net, layer):
            compiled = torch.compile(run, backend='eager')
            for _ in range(2):
                x = torch.randn(2, 1, 16, requires_grad=True)
                compiled(x).square().mean().backward()
            torch.compiler.reset()
"""


def test_nothing_is_compiled_twice_in_a_new_process():
    command = [sys.executable, '-c', textwrap.dedent(FIRST_OF_A_PROCESS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


ANOTHER_PROCESS = """
    import torch, mdnc
    from torch._dynamo.utils import counters
    torch.manual_seed(0)
    net, x = mdnc.modules.resnet.EncoderNet1d(4, [1, 1]), torch.randn(2, 1, 16)
    with torch._functorch.config.patch(enable_autograd_cache=True):
        y = torch.compile(net, fullgraph=True)(x)
        y.square().sum().backward()
    got = [each.grad.clone() for each in net.parameters()]
    net.zero_grad()
    net(x).square().sum().backward()
    for mine, theirs in zip(got, net.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.grad, rtol=1e-3, atol=1e-4)
    print(counters['aot_autograd']['autograd_cache_hit'])
"""


@pytest.mark.slow  # 20 s: two processes, the first of which compiles
def test_a_graph_from_the_cache_of_another_process(tmp_path):
    command = [sys.executable, '-c', textwrap.dedent(ANOTHER_PROCESS)]
    hits = []
    for _ in range(2):
        env = {**os.environ, 'TORCHINDUCTOR_CACHE_DIR': str(tmp_path)}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        hits.append(int(done.stdout))
    assert hits == [0, 1]
