"""Fingerprints that were made: what data of every dimension, size and budget would say of themselves."""

from dataclasses import dataclass
from typing import Any

from mdnc.planning import Fingerprint, Target

GIB = 2**30


@dataclass(frozen=True)
class Case:
    """Data and a budget.

    Args:
        name: What they are like.
        data: Their fingerprint.
        gibibytes: The budget.
    """

    name: str
    data: Fingerprint
    gibibytes: float


def classes(count: int, samples: int, rarest: float | None = None) -> Target:
    """Classes of samples, all alike, or the last with a share of its own."""
    counts = [max(samples // count, 1)] * count
    if rarest is not None:
        counts = [*[max(round(samples * (1 - rarest) / (count - 1)), 1)] * (count - 1), max(round(samples * rarest), 1)]
    return Target('classes', count, counts=counts)


def maps(count: int, rarest: float | None = None) -> Target:
    """Maps of classes; the rarest has a share of its own."""
    return Target('class map', count, counts=classes(count, 10**6, rarest).counts)


def numbers(count: int) -> Target:
    """Quantities of a sample."""
    return Target('numbers', count)


def quantities(count: int) -> Target:
    """Quantities at each position."""
    return Target('map', count)


def _case(name: str, gibibytes: float, shape: tuple[int, ...], samples: int, target: Target, **more: Any) -> Case:
    channels, *size = shape
    return Case(name, Fingerprint(len(size), samples, channels, tuple(size), target=target, **more), gibibytes)


SIGNALS = [
    _case('24 values, 20 samples', 0.5, (1, 24), 20, classes(2, 20)),
    _case('24 values, 67 samples', 2, (1, 24), 67, classes(2, 67)),
    _case('150 values, 50 samples', 8, (1, 150), 50, classes(2, 50)),
    _case('427 values, 200 samples, 6 classes', 8, (1, 427), 200, classes(6, 200)),
    _case('3 channels of 128, 10⁴ samples', 4, (3, 128), 10_000, classes(6, 10_000)),
    _case('12 leads of 5000, 2·10⁴ samples', 16, (12, 5000), 20_000, classes(71, 20_000)),
    _case('12 leads of 1000, 10⁶ samples, 1000 classes', 80, (12, 1000), 10**6, classes(1000, 10**6)),
    _case('one class at 0.01 %', 4, (1, 500), 10**5, classes(2, 10**5, 1e-4)),
    _case('200 channels of 3000', 16, (200, 3000), 2 * 10**5, classes(1000, 2 * 10**5)),
    _case('200 channels of 250, 40 samples', 1, (200, 250), 40, classes(2, 40)),
    _case('2·10⁶ values, half a GiB', 0.5, (1, 2 * 10**6), 1000, classes(2, 1000)),
    _case('2·10⁶ values, 24 GiB', 24, (1, 2 * 10**6), 1000, classes(2, 1000)),
    _case('2·10⁵ values, 8 channels', 8, (8, 2 * 10**5), 500, classes(5, 500)),
    _case('lengths 100 to 3000', 8, (2, 800), 3000, classes(9, 3000), least=(100,), most=(3000,)),
    _case('a number from 4096 values', 8, (1, 4096), 5000, numbers(1)),
    _case('40 numbers from 1800 values', 24, (6, 1800), 10**5, numbers(40)),
    _case('a class at each of 3000 values', 4, (1, 3000), 300, maps(4)),
    _case('a class at each of 10⁶ values', 8, (2, 10**6), 60, maps(3, 1e-4)),
    _case('a quantity at each of 2048 values', 1, (1, 2048), 1000, quantities(1)),
    _case('signals given back', 2, (16, 512), 4000, Target()),
]
IMAGES = [
    _case('8 × 8, 1797 samples', 2, (1, 8, 8), 1797, classes(10, 1797)),
    _case('28 × 28, 6·10⁴ samples', 8, (1, 28, 28), 60_000, classes(10, 60_000)),
    _case('32 × 32, 100 classes', 16, (3, 32, 32), 50_000, classes(100, 50_000)),
    _case('224 × 224, 1000 classes', 24, (3, 224, 224), 50_000, classes(1000, 50_000)),
    _case('224 × 224, 10⁶ samples', 80, (3, 224, 224), 10**6, classes(1000, 10**6)),
    _case('1024 × 1024, 300 samples', 12, (3, 1024, 1024), 300, classes(3, 300)),
    _case('3000 × 2000, 80 samples', 24, (3, 3000, 2000), 80, classes(2, 80)),
    _case('sizes 200 to 900', 8, (3, 480, 640), 4000, classes(20, 4000), least=(200, 240), most=(900, 900)),
    _case('64 × 64 of 200 channels', 8, (200, 64, 64), 500, classes(16, 500)),
    _case('20 images', 0.5, (3, 128, 128), 20, classes(2, 20)),
    _case('an age from 512 × 512', 12, (1, 512, 512), 12_000, numbers(1)),
    _case('cells, 696 × 520', 8, (1, 520, 696), 30, maps(3, 1e-3)),
    _case('streets, 19 classes', 24, (3, 1024, 2048), 2975, maps(19)),
    _case('streets, half a GiB', 0.5, (3, 1024, 2048), 2975, maps(19)),
    _case('retinas, 20 samples', 4, (3, 584, 565), 20, maps(2)),
    _case('150 classes at each pixel', 40, (3, 512, 683), 20_000, maps(150)),
    _case('a class at 0.01 % of pixels', 8, (4, 256, 256), 5000, maps(2, 1e-4)),
    _case('depth of 480 × 640', 16, (3, 480, 640), 1449, quantities(1)),
    _case('images as (H, W, 1)', 4, (1, 256, 256, 1), 200, maps(2)),
    _case('photographs given back', 2, (3, 96, 96), 3000, Target()),
]
VOLUMES = [
    _case('32³, 4·10³ samples', 4, (1, 32, 32, 32), 4000, classes(10, 4000)),
    _case('91 × 109 × 91, an age', 80, (1, 91, 109, 91), 600, numbers(1)),
    _case('91 × 109 × 91, an age, 1 GiB', 1, (1, 91, 109, 91), 600, numbers(1)),
    _case('64³, 2 classes', 8, (1, 64, 64, 64), 1000, classes(2, 1000)),
    _case('brain, 4 modalities', 8, (4, 138, 170, 138), 484, maps(4), spacing=(1, 1, 1)),
    _case('brain, half a GiB', 0.5, (4, 138, 170, 138), 484, maps(4), spacing=(1, 1, 1)),
    _case('brain, 80 GiB', 80, (4, 138, 170, 138), 484, maps(4), spacing=(1, 1, 1)),
    _case('heart, 10 slices', 8, (1, 10, 237, 208), 200, maps(4), spacing=(10, 1.56, 1.56)),
    _case('19 slices, no spacing', 8, (1, 19, 256, 216), 100, maps(4)),
    _case('19 slices, 1 GiB', 1, (1, 19, 320, 320), 40, maps(3)),
    _case('prostate', 8, (2, 20, 320, 319), 32, maps(3), spacing=(3.6, 0.62, 0.62)),
    _case('hippocampus', 8, (1, 36, 50, 35), 260, maps(3), spacing=(1, 1, 1)),
    _case('lung', 8, (1, 252, 512, 512), 63, maps(2, 1e-4), spacing=(1.24, 0.78, 0.78)),
    _case('abdomen, 14 classes', 24, (1, 200, 512, 512), 30, maps(14), spacing=(3, 0.76, 0.76)),
    _case('bodies, 104 classes', 40, (1, 250, 240, 240), 1200, maps(104), spacing=(1.5, 1.5, 1.5)),
    _case(
        '20 volumes of several sizes', 12, (1, 90, 200, 180), 20, maps(2), least=(40, 150, 150), most=(160, 256, 240)
    ),
    _case('microscope, 1024³', 80, (1, 1024, 1024, 1024), 20, maps(2)),
    _case('a dose at each voxel', 16, (3, 128, 128, 128), 340, quantities(1), spacing=(2.5, 2.5, 2.5)),
    _case('volumes given back', 1, (1, 64, 64, 64), 200, Target()),
    _case('200 echoes of 40³', 4, (200, 40, 40, 40), 60, maps(3)),
]
CASES = [*SIGNALS, *IMAGES, *VOLUMES]


@dataclass(frozen=True)
class Known:
    """Data that nnU-Net's plans for 8 GiB are known for (Isensee et al., 2021; arXiv:2404.09556).

    Args:
        case: The data.
        patch: Its patch of a residual network, or, where it was not worked out, of the plain one.
        batch: Its batch.
        residual: Whether it is that of the residual network.
    """

    case: Case
    patch: tuple[int, int, int]
    batch: int
    residual: bool


def _like(name: str, shape: tuple[int, ...], samples: int, count: int, spacing: tuple[float, ...]) -> Case:
    return _case(name, 8, shape, samples, maps(count), spacing=spacing)


KNOWN = [
    Known(_like('brain', (4, 138, 170, 138), 484, 4, (1, 1, 1)), (128, 128, 128), 2, True),
    Known(_like('heart (ACDC)', (1, 10, 237, 208), 200, 4, (10, 1.56, 1.56)), (10, 256, 224), 7, False),
    Known(_like('prostate', (2, 20, 320, 319), 32, 3, (3.6, 0.62, 0.62)), (20, 256, 256), 2, True),
    Known(_like('hippocampus', (1, 36, 50, 35), 260, 3, (1, 1, 1)), (40, 56, 40), 58, False),
    Known(_like('lung', (1, 252, 512, 512), 63, 2, (1.24, 0.78, 0.78)), (80, 192, 160), 2, True),
    Known(_like('CT of the liver', (1, 482, 512, 512), 131, 3, (1, 0.77, 0.77)), (128, 128, 128), 2, True),
]
