"""The pool of memory that optimised networks write to: values, reuse, what goes back, threads and forks."""

import gc
import os
import subprocess
import sys
import textwrap
import threading

import pytest
import torch
from torch._subclasses import FakeTensorMode

import mdnc
from mdnc.ops import allocator

CPU = torch.empty(0)
LARGE = 2**22  # values, 16 MiB: more than the gaps that other tests in this process leave in the pool

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='the pool is made for Linux alone')


@pytest.fixture(autouse=True)
def nothing_left_over():
    gc.collect()
    before = allocator.held()[0]
    yield
    gc.collect()
    assert allocator.held()[0] <= before  # what an earlier test held may be freed within this one


def used() -> int:
    return allocator.held()[0]


def test_large_tensors_lie_in_it_and_their_memory_serves_the_next():
    before = used()
    with allocator.pooled(CPU):
        first, small = torch.zeros(LARGE), torch.zeros(16)
    assert used() - before == first.nbytes
    assert first.sum() + small.sum() == 0
    outside = torch.zeros(LARGE)
    assert used() - before == first.nbytes
    held = allocator.held()[1]
    del first
    assert used() == before
    with allocator.pooled(CPU):
        again = torch.full((LARGE,), 2.0)
    assert allocator.held()[1] == held
    assert again.sum() == 2 * LARGE
    assert outside.sum() == 0


def test_neighbouring_gaps_are_joined_and_split():
    with allocator.pooled(CPU):
        parts = [torch.full((LARGE,), float(index)) for index in range(6)]
        top = allocator.held()[1]
        kept = parts[5]
        del parts[1:4]  # freed in the order of their addresses; then from both sides
        whole = torch.full((3 * LARGE,), 7.0)
        assert allocator.held()[1] == top
        del whole
        pieces = [torch.full((LARGE // 2,), 8.0) for _ in range(6)]
        assert allocator.held()[1] == top
    assert parts[0].sum() == 0
    assert kept.sum() == 5 * LARGE
    assert all(piece.sum() == 4 * LARGE for piece in pieces)


def test_a_buffer_freed_between_two_others_and_after_them():
    with allocator.pooled(CPU):
        parts = [torch.empty(LARGE) for _ in range(4)]
        top = allocator.held()[1]
        for index in (0, 2, 1):
            parts[index] = torch.empty(0)
        joined = torch.ones(3 * LARGE)
        assert allocator.held()[1] == top
    assert joined.sum() == 3 * LARGE


def test_what_is_released_goes_back_and_what_is_in_use_stays():
    with allocator.pooled(CPU):
        kept, gone = torch.ones(LARGE), torch.ones(2 * LARGE)
    assert resident() > 0
    before, size = resident(), gone.nbytes
    del gone
    allocator.release()
    assert before - resident() > 0.8 * size
    assert kept.sum() == LARGE


def resident() -> int:
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def test_other_threads_are_left_alone():
    found = []
    with allocator.pooled(CPU):
        before = used()
        thread = threading.Thread(target=lambda: found.append(torch.zeros(LARGE)))
        thread.start()
        thread.join()
        assert used() == before
    assert found[0].sum() == 0


def test_one_within_another_and_errors_within():
    own = []

    def fails() -> None:
        with allocator.pooled(CPU):
            with allocator.pooled(CPU):
                pass
            own.append(torch.zeros(LARGE))
            raise RuntimeError('within')

    before = used()
    with pytest.raises(RuntimeError, match='within'):
        fails()
    outside = torch.zeros(LARGE)
    assert used() - before == own[0].nbytes == outside.nbytes


def test_many_threads_at_once():
    wrong = []

    def work(number: int) -> None:
        for turn in range(40):
            with allocator.pooled(CPU):
                mine = [torch.full((LARGE // 16 + 1024 * number,), float(number * 100 + turn)) for _ in range(4)]
            wrong.extend(each for each in mine if not (each == number * 100 + turn).all())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_other_device_and_no_fake_tensor_enters():
    with FakeTensorMode():
        fake = torch.empty(3)
    for like in (fake, torch.empty(3, device='meta')):
        before = used()
        with allocator.pooled(like):
            own = torch.zeros(LARGE)
        assert used() == before
        assert own.sum() == 0


def test_an_optimised_networks_activations_lie_in_it_and_are_counted():
    net, x = mdnc.modules.resnet.EncoderNet2d(32, [1, 1], out_length=None), torch.randn(2, 1, 64, 64)
    before = used()
    y = mdnc.optimize(net)(x)
    assert used() - before >= y.nbytes
    with torch.profiler.profile(profile_memory=True) as profiler:
        again = net(x)
    assert sum(each.self_cpu_memory_usage for each in profiler.key_averages()) >= again.nbytes
    assert mdnc.restore(net) is net


FORKED = """
    import os, torch
    from mdnc.ops import allocator
    with allocator.pooled(torch.empty(0)):
        whole = torch.ones(2**20)
        child = os.fork()
        if child == 0:
            with allocator.pooled(torch.empty(0)):
                own = torch.full((2**20,), 2.0)
            whole += own
            os._exit(int(whole.sum().item() != 3 * 2**20))
    assert os.waitpid(child, 0)[1] == 0
    assert whole.sum().item() == 2**20
"""


def test_a_forked_child_has_a_pool_of_its_own():
    # torch warns of nothing here, but its threads don't survive a fork: one thread.
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(FORKED)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_systems_own_calls_keep_values():
    allocator.keep()
    assert torch.ones(2**21).sum().item() == 2**21
