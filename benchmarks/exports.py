"""``python -m benchmarks.exports``: inference by the exported files beside eager torch."""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

import mdnc
from benchmarks.page import tables
from benchmarks.parts import in_turns, say
from benchmarks.results import RESULTS, Row, Setting, rows, write
from mdnc import export

Run = Callable[[], object]

BASELINE = 'eager, torch layers'
# Name, constructor, input; the first is the documented example.
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    'EncoderNet2d(64, [2]*5), 8×3×64×63': (
        partial(mdnc.modules.resnet.EncoderNet2d, 64, [2] * 5, in_planes=3, out_length=32),
        (8, 3, 64, 63),
    ),
    'EncoderNet1d(32, [2]*4), 8×1×2048': (partial(mdnc.modules.resnet.EncoderNet1d, 32, [2] * 4), (8, 1, 2048)),
    'UNet2d(32, [2]*3), 2×1×128×127': (partial(mdnc.modules.resnet.UNet2d, 32, [2] * 3), (2, 1, 128, 127)),
    'UNet3d(16, [2]*3), 1×1×40×41×42': (partial(mdnc.modules.resnet.UNet3d, 16, [2] * 3), (1, 1, 40, 41, 42)),
}
TIMED_SECONDS = 0.25


def contenders(net: Any, x: Tensor, folder: Path, quick: bool) -> Iterator[tuple[str, Run]]:
    """Each way to run one and the same network, opened and ready."""
    yield BASELINE, partial(_plainly, net, x)
    yield 'eager', partial(net, x)
    module = torch.export.load(export.to_torch_export(net, folder / 'net.pt2').path).module()
    yield 'torch.export', partial(module, x)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = export.to_onnx(net, folder / 'net.onnx').path
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    yield 'onnxruntime', partial(session.run, None, {'x': x.numpy()})
    if not quick:
        compiled = torch._inductor.aoti_load_package(str(export.to_aotinductor(net, folder / 'compiled.pt2').path))
        yield 'AOTInductor', partial(compiled, x)


def exports(setting: Setting, quick: bool) -> Iterator[Row]:
    """Inference of every case by every contender."""
    for case, (make, shape) in CASES.items():
        say(case)
        torch.manual_seed(0)
        net, x = make().eval(), torch.randn(shape)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            takes = {name: partial(_seconds, run) for name, run in contenders(net, x, Path(folder), quick)}
            in_turns(takes, 1)
            yield from rows(setting, case, 'inference', in_turns(takes, 5 if quick else 21), [BASELINE])


def _plainly(net: nn.Module, x: Tensor) -> object:
    with mdnc.ops.plain():
        return net(x)


def _seconds(run: Run) -> float:
    # The mean of as many runs as fit in; the first says how many.
    started = time.perf_counter()
    run()
    times = max(1, min(50, math.ceil(TIMED_SECONDS / (time.perf_counter() - started))))
    started = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - started) / times


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, write the CSV."""
    parser = argparse.ArgumentParser('python -m benchmarks.exports', description=__doc__)
    parser.add_argument('--quick', action='store_true', help='without AOTInductor, and with fewer rounds')
    parser.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)), help='threads of torch')
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    found = []
    for row in exports(Setting('exports', 'cpu', given.threads), given.quick):
        found.append(row)
        write((RESULTS / 'quick' if given.quick else RESULTS) / 'exports-cpu.csv', found)
    print(tables(found), flush=True)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
