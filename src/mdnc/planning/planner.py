"""From a fingerprint and a budget to a plan: task, split, network, window, batch, time."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from torch import nn

from mdnc import analysis
from mdnc.analysis.table import bytes_text
from mdnc.modules import Network as MdncNetwork
from mdnc.modules import resnet
from mdnc.modules._tiling import tile_starts, usual_overlap
from mdnc.planning.budget import Budget
from mdnc.planning.budget_search import (
    LEVELS,
    BudgetError,
    Fitter,
    Limits,
    Trial,
    TrialCosts,
    positions,
    runner_up,
    text_of,
)
from mdnc.planning.choices import GIVEN, Choices
from mdnc.planning.design import Design, encoder_design, known_spacing, unet_design
from mdnc.planning.fingerprint import MIXED_DEPTHS, MIXED_SCALES, NOT_FINITE, UNKNOWN_TARGETS, Fingerprint
from mdnc.planning.plans import Plan
from mdnc.planning.resources import Job, TileLayout, prediction_need
from mdnc.training.data.normalisation import widest
from mdnc.training.data.reader import DataError
from mdnc.training.tasks.network import build_network

Size = tuple[int, ...]

_TASKS = {
    'none': ('Reconstruction', 'there are no targets: the input is given back'),
    'names': ('Classification', 'a target is the name of a class'),
    'classes': ('Classification', 'a target is a whole number, met in several samples'),
    'numbers': ('Regression', 'a target is a quantity, or a vector of some'),
    'labels': ('MultiLabel', 'a target is a vector of 0 and 1: of which classes a sample is'),
    'class map': ('Segmentation', 'a target is a map of whole numbers of the size of its input'),
    'map': ('DenseRegression', 'a target is a map of quantities of the size of its input'),
}
_OF_CLASSES = ('Segmentation', 'Classification', 'MultiLabel')
_CAPS = {1: 256, 2: 512, 3: 320}
_STEPS = 1000  # that a run on few samples should make at least
_RARE = 0.5  # of the share that a class would have, were all alike: below, the loss is weighted
_HEAVIEST = 10.0
_TILES = (4, 2)  # of a batch in prediction
_TIGHTER = 0.9  # a tile more takes at least this share of what the first one takes
_STATISTICS = 8  # samples of a step from which a batch norm is good
_PATTERNS = 60  # groups that a split names
_PICTURE = 32  # side of an image from which it is moved, turned and mirrored too
_PRESETS = {name for name in resnet.__all__ if name[0].islower()}


def planned(data: Fingerprint, budget: Budget, given: Mapping[str, Any], macs: float | None = None) -> Plan:
    """Plan a run.

    Args:
        data: What is known of the data.
        budget: What the run may take.
        given: Words of the recipe that stay as they are, flat.
        macs: Multiply-adds of a step that the hours allow.

    Raises:
        BudgetError: Nothing fits; the text says the least that works.
        DataError: Such data cannot be trained on.
    """
    return _Planner(data, budget, given).plan(macs)


@dataclass(frozen=True)
class _Goal:
    """What windows are wanted, and how they are called."""

    size: Size
    word: str  # 'patch', 'crop' or '' for whole samples
    because: str


class _Planner:
    def __init__(self, data: Fingerprint, budget: Budget, given: Mapping[str, Any]) -> None:
        self._seen = self.data = data
        self.budget, self.choices = budget, Choices(given)
        self.pick = self.choices.pick
        self.notes: list[str] = []
        self.order = data.order
        self._even_spacing()
        data = self.data
        self.spacing, self.spaced = known_spacing(data.size, data.spacing)

    def _even_spacing(self) -> None:
        """Where samples differ in spacing, one for all of them: the median, of thick slices a finer one."""
        data, given = self.data, self.choices.given('data.spacing')
        if given is not None:
            self.data = _resampled(data, tuple(float(each) for each in given))
        ends = [data.spacings.get(name) for name in ('min', 'max', 'p10')]
        if given is not None or data.spacing is None or None in ends or self.choices.has('data.resize'):
            return
        low, high, fine = (tuple(each or ()) for each in ends)
        if all(most <= 1.1 * least for least, most in zip(low, high, strict=True)):
            return
        axis = int(np.argmax(data.spacing))
        others = [each for place, each in enumerate(data.spacing) if place != axis]
        target = list(data.spacing)
        thick = bool(others) and target[axis] > 3 * max(others)
        if thick:
            target[axis] = fine[axis]
        shown = ', '.join(f'{least:g} to {most:g}' for least, most in zip(low, high, strict=True))
        because = f'spacings differ ({shown}): the median' + (', of the thick axis the finest tenth' if thick else '')
        self.pick('data.spacing', target, because, 'none: the same object would have several sizes')
        self.data = _resampled(data, tuple(target))

    def plan(self, macs: float | None) -> Plan:
        """All choices in order."""
        self.pick('seed_everything', 0, 'the same data and words give the same run')
        task = self._task()
        job = self._job(task)
        train = self._split()
        goal = self._goal(job)
        self._goal_given = goal.because == GIVEN
        bench, limits, trial = self._fit(job, goal, train, macs)
        trial = self._name_network(job, bench, limits, trial)
        self._name_training(job, train, trial)
        self._name_data(job, goal, limits, trial, train)
        self._name_trainer(job, trial, train, goal)
        self._point_out(job, bench, trial)
        prediction = self._prediction(bench.network(trial), job, trial)
        made = [self.choices.made[word] for word in _ordered(self.choices)]
        forecast = self._forecast(job, bench, limits, trial, prediction)
        return Plan(tuple(made), self._seen, asdict(self.budget), forecast, tuple(self.notes))

    def _task(self) -> str:
        name, because = _TASKS[self.data.target.kind]
        task = str(self.pick('model.class_path', name, because))
        if task not in {name for name, _ in _TASKS.values()}:
            raise ValueError(
                f'plan: task={task!r} is none of {", ".join(sorted({name for name, _ in _TASKS.values()}))}.'
            )
        fits = {'Segmentation': ('class map',), 'DenseRegression': ('map', 'class map'), 'Reconstruction': _TASKS}
        fits |= {
            'Classification': ('names', 'classes'),
            'Regression': ('numbers', 'classes', 'labels'),
            'MultiLabel': ('labels',),
        }
        if self.data.target.kind not in fits[task]:
            raise ValueError(
                f'plan: task={task!r} does not suit the data: {_TASKS[self.data.target.kind][1]}, '
                f'which asks for {name}.'
            )
        return task

    def _job(self, task: str) -> Job:
        target = self.data.target
        outputs = self.data.channels if task == 'Reconstruction' else target.outputs
        if task == 'Regression' and target.kind == 'classes':
            outputs = 1
        if task in ('Classification', 'Segmentation'):
            met = sum(count > 0 for count in target.counts)
            if target.counts and met < 2 and target.outputs < 3:
                raise DataError('the targets hold a single class: there is nothing to tell apart')
            outputs = max(outputs, 2)
        criterion = 'both'
        if task == 'Segmentation':
            because = 'cross-entropy learns evenly, Dice does not forget small classes'
            criterion = self.pick('model.criterion', 'both', because)
            if target.ignore is not None:
                self.pick('model.ignore', target.ignore, 'this number is in the targets, and no class of theirs')
        return Job(task, self.data.channels, outputs, criterion)

    # Split.

    def _split(self) -> int:
        """Samples that train."""
        parts = self.data.parts
        total = self.data.samples
        if self.choices.has('data.split.given'):
            return self.data.training or max(1, round(0.8 * total))
        shares = {}
        for part, value, because in self._divided():
            if part in parts:
                continue
            chosen = self.pick(f'data.split.{part}', value, because)
            shares[part] = self._taken(chosen) / total if isinstance(chosen, list) else float(chosen)
        taken = sum(max(round(share * total), 1) if share else 0 for share in shares.values())
        if taken >= total:
            raise DataError(f'of {total} samples none is left for training by the split {shares}')
        return total - taken

    def _taken(self, patterns: list[str]) -> int:
        """Samples of the groups that patterns of a split name; of patterns of the user's own as many as is usual."""
        keys = self.data.groups.get('keys', {})
        taken = [count for key, count in keys.items() if _escaped(key) + '*' in patterns]
        return sum(taken) or max(1, self.data.samples // 10)

    def _divided(self) -> list[tuple[str, Any, str]]:
        total, groups = self.data.samples, self.data.groups
        known = ' and '.join(part for part in ('val', 'test') if part in self.data.parts)
        if known and total < 100:
            return [
                (part, 0.0, f'the data bring their own {known}; {total} samples are few') for part in ('val', 'test')
            ]
        share = 0.1 if total >= 100 else 0.2
        if total < 5:
            because = f'{total} samples: none is spared; figures on the training part say little'
            self.notes.append(
                'there are too few samples for a validation or test part: no figure will say how well new ones go'
            )
            return [('val', 0.0, because), ('test', 0.0, because)]
        if groups:
            return self._by_groups(groups, share)
        because = f'{share:.0%} of {total} samples, drawn at random: names show no groups'
        if known:
            return [('val', share, because), ('test', 0.0, f'the data bring their own {known}')]
        return [('val', share, because), ('test', share, because)]

    def _by_groups(self, groups: Mapping[str, Any], share: float) -> list[tuple[str, Any, str]]:
        keys = groups['keys']
        self.notes.append(
            f'names show {groups["count"]} groups, such as {groups["example"]!r}: if these are people or recordings, '
            'they must not be torn apart between training and test'
        )
        drawn = [list(keys)[place] for place in np.random.default_rng(0).permutation(len(keys))]
        parts: list[tuple[str, Any, str]] = []
        for part in ('val', 'test'):
            taken: list[str] = []
            wanted = share * self.data.samples
            while drawn and (not taken or sum(keys[key] for key in taken) < wanted):
                taken.append(drawn.pop())
            if not drawn or len(taken) > _PATTERNS or part in self.data.parts:
                because = f'{groups["count"]} groups in names are too {"few" if not drawn else "many"} to be named here'
                return [(each, share, because) for each in ('val', 'test')]
            patterns = [_escaped(key) + '*' for key in sorted(taken)]
            parts.append((part, patterns, f'whole groups of names, {len(taken)} of {groups["count"]}'))
        return parts

    # Windows.

    def _goal(self, job: Job) -> _Goal:
        data = self.data
        for word in ('patch', 'crop', 'resize'):
            if (value := self.choices.given(f'data.{word}')) is not None:
                return _Goal(tuple(value), word, GIVEN)
        if not data.varied:
            return _Goal(data.size, '', 'the whole of a sample')
        if job.dense:
            return _Goal(data.size, 'patch', 'the median sample; smaller ones are filled up')
        if self.order > 1:
            return _Goal(data.size, 'resize', 'samples differ in size: all are brought to that of the median')
        assert data.most is not None
        self.notes.append(
            f'signals differ in length, {text_of(data.least or ())} to {text_of(data.most)}: a batch is filled up to '
            'its longest, and the forecast is that of batches of the longest'
        )
        return _Goal(data.most, '', 'the longest sample')

    def _design(self, job: Job, window: Size) -> Design:
        if job.dense:
            return unet_design(window, self.spacing)
        period = max((each['length'] for each in self.data.periods), default=0.0)
        return encoder_design(window, self.spacing, period)

    def _family(self, job: Job) -> str:
        usual = 'AE' if job.task == 'Reconstruction' else 'UNet' if job.dense else 'EncoderNet'
        return f'{usual}{self.order}d'

    def _arguments(self, job: Job, window: Size, width: int, level: str, norm: str) -> dict[str, Any]:
        """Arguments of the network, those that were given among them."""
        name = self.choices.given('model.network.name', self._family(job))
        design = self._design(job, window)
        planes = {'in_planes': job.channels, 'out_planes' if job.dense else 'out_length': job.outputs}
        prefix = 'model.network.arguments.'
        given = {
            word.removeprefix(prefix): value for word, value in self.choices.words.items() if word.startswith(prefix)
        }
        if name in _PRESETS:
            return {'order': self.order, **planes, 'memory': level, **given}
        if name not in resnet.__all__:
            return {**_asked_for(name, job, window, width, design), **given}
        depth = len(design.kernels)
        layers = [1] * depth if job.dense or self.order == 1 else [1] + [2] * (depth - 1)
        own: dict[str, Any] = {
            'channel': width,
            'layers': layers,
            'block': 'plain',
            'kernel_size': _short(design.kernels),
            **planes,
            'strides': _short(design.strides),
            'max_channel': max(_CAPS[self.order], width),
            'normalizer': norm,
            'resize_at': 'first',
        }
        if not job.dense:
            own |= {'tail': 'norm', 'tail_normalizer': 'group' if norm == 'group' else 'batch'}
        own['memory'] = level
        return _agreeing({**own, **given}, own, given)

    def _bench(self, job: Job, norm: str) -> TrialCosts:
        name = str(self.choices.given('model.network.name', self._family(job)))

        def make(window: Size, width: int, level: str) -> nn.Module:
            return build_network({'name': name, 'arguments': self._arguments(job, window, width, level, norm)})

        return TrialCosts(make, job, self.budget)

    def _limits(self, job: Job, goal: _Goal, train: int, macs: float | None) -> Limits:
        per_device = self.budget.devices
        width = self._width(job, train)
        given_width = self.choices.given('model.network.arguments.channel')
        fixed = given_width is not None or self._fixed_network(job)
        widths = (given_width or width,) if fixed else tuple(each for each in (64, 48, 32, 24, 16, 8) if each <= width)
        aim, most = self._batches(job, goal, train)
        batch = self.choices.given('data.batch_size')
        level = self.choices.given('model.network.arguments.memory')
        return Limits(
            widths=widths,
            levels=LEVELS if level is None else (level,),
            goal=goal.size,
            spacing=self.spacing,
            aim=max(1, aim // per_device),
            most=max(1, most // per_device),
            window=goal.size if goal.because == GIVEN or not job.dense else None,
            batch=None if batch is None else max(1, int(batch) // per_device),
            macs=macs,
            widest=self._widest(job, train),
        )

    def _widest(self, job: Job, train: int) -> int:
        """Channels of the first level that samples are many enough for; in dense tasks positions are."""
        count = train * self.data.values_a_sample / 30_000 if job.dense else train
        return 256 if count >= 100_000 else 128 if count >= 10_000 else 64

    def _fixed_network(self, job: Job) -> bool:
        name = self.choices.given('model.network.name', self._family(job))
        return name in _PRESETS

    def _width(self, job: Job, train: int) -> int:
        if job.dense:
            return 32
        usual = 16 if self.order == 3 else 32
        return usual * 2 if train >= 100_000 else 48 if train >= 10_000 and usual == 32 else usual

    def _batches(self, job: Job, goal: _Goal, train: int) -> tuple[int, int]:
        """Samples of a step that are wanted, and the most that make sense."""
        if job.dense:
            total = train * self.data.values_a_sample
            most = int(0.05 * total / positions(goal.size))
            return 2, min(max(most, 2 if positions(goal.size) >= 2**18 else min(8, train // 2), 2), 64)
        aim = min(max(train // 20, 8), 64, max(train, 1))
        return aim, max(aim, min(train // 50, 4096))

    # Fit.

    def _fit(self, job: Job, goal: _Goal, train: int, macs: float | None) -> tuple[TrialCosts, Limits, Trial]:
        limits = self._limits(job, goal, train, macs)
        given = self.choices.given('model.network.arguments.normalizer')
        self._norm = given or ('pinst' if job.dense else 'batch')
        bench = self._bench(job, self._norm)
        if job.dense or given:
            return bench, limits, Fitter(bench, limits).best()
        trial = None
        try:
            trial = Fitter(bench, limits).best()
            if trial.batch >= min(limits.aim, _STATISTICS):
                return bench, limits, trial
        except BudgetError:
            if goal.because == GIVEN:
                raise
        self._norm = 'pinst'
        bench = self._bench(job, self._norm)
        if trial is not None:  # norms of both kinds take as much
            fixed = replace(limits, widths=(trial.width,), levels=(trial.level,), batch=trial.batch)
            return bench, limits, Fitter(bench, fixed).best()
        limits = replace(limits, window=None)
        return bench, limits, Fitter(bench, limits).best()

    def _name_network(self, job: Job, bench: TrialCosts, limits: Limits, trial: Trial) -> Trial:
        """Write the network down, with reasons."""
        family = self._family(job)
        name = self.pick('model.network.name', family, self._why_family(job))
        arguments = self._arguments(job, trial.window, trial.width, trial.level, self._norm)
        reasons = self._why_arguments(job, bench, limits, trial)
        for word, value in arguments.items():
            because, instead = reasons.get(word, ('', ''))
            self.pick(f'model.network.arguments.{word}', value, because, instead)
        if name not in resnet.__all__:
            self.notes.append(f'{name} is your own: its words are those of patch, strides and widths that it takes')
        return trial

    def _why_family(self, job: Job) -> str:
        if job.dense:
            return 'an output for each position, of the size of its input'
        return f'{job.outputs} values a sample'

    def _why_outputs(self, job: Job) -> str:
        if job.task == 'Reconstruction':
            return 'as many as go in'
        return f'{job.outputs} {"classes" if job.task in ("Classification", "Segmentation") else "quantities"}'

    def _why_arguments(self, job: Job, bench: TrialCosts, limits: Limits, trial: Trial) -> dict[str, tuple[str, str]]:
        design, share = self._design(job, trial.window), bench.bytes(trial) / self.budget.bytes
        field = self._field(bench.network(trial))
        widths = f'{trial.width} channels: ' + (
            'the widest of 64, 48, 32, 24, 16, 8 that leaves room for the window and batch wanted'
            if trial.width <= limits.widths[0]
            else 'more than usual, for the budget leaves room'
        )
        norm = {
            'batch': f'batch norm: {trial.batch} samples a step are enough for its statistics',
            'pinst': 'instance norm: it does not mind small batches',
        }
        level = {
            'fast': 'the level that recomputes least: there is room for what it keeps',
            'lean': 'the level of least recomputation at which window and batch fit',
        }
        return {
            'channel': (widths, ''),
            'block': ('two convolutions and a shortcut', ''),
            'in_planes': ('channels of the data', ''),
            'out_planes': (self._why_outputs(job), ''),
            'out_length': (self._why_outputs(job), ''),
            'resize_at': ("a level's first block changes its size, so that the finest level keeps all values", ''),
            'tail_normalizer': ('an instance norm there would take away the mean that the pool reads', ''),
            'layers': (f'{len(design.kernels)} levels: {"; ".join(design.reasons)}', ''),
            'kernel_size': (self.spaced, ''),
            'strides': (f'{"; ".join(design.reasons)}; {field}', ''),
            'max_channel': (f'the usual cap in {self.order}-D: deeper levels grow no wider', ''),
            'normalizer': (norm.get(self._norm, ''), ''),
            'memory': (
                f'{level.get(trial.level, "nothing quicker fits")}: {bytes_text(bench.bytes(trial))} of '
                f'{bytes_text(self.budget.bytes)} ({share:.0%})',
                runner_up(bench, limits, trial) if trial.batch < limits.most or job.dense else '',
            ),
            'tail': ('a norm before the pool: else the last layers are one affine map', ''),
        }

    def _field(self, net: nn.Module) -> str:
        if not isinstance(net, MdncNetwork):
            return 'its receptive field is not known'
        stages = analysis.receptive_field(net).stages
        length = tuple(max(stage.axes[axis].length for stage in stages) for axis in range(self.order))
        text = f'the deepest features see {text_of(length)}'
        objects = [each['median'] for each in self.data.target.objects.values()]
        if objects:
            largest = max(objects, key=positions)
            enough = all(have >= want for have, want in zip(length, largest, strict=True))
            return f'{text}; objects measure {text_of(largest)}' + ('' if enough else ', which is more')
        if self.data.periods:
            return f'{text}; the strongest period is {self.data.periods[0]["length"]:g} values'
        return text

    # Training.

    def _name_training(self, job: Job, train: int, trial: Trial) -> None:
        target, budget = self.data.target, self.budget
        batch = trial.batch * budget.devices
        rate = 3e-3 * min(max((batch / 64) ** 0.5, 1.0), 3.0)
        if budget.optimizer in ('adamw', 'adam', 'rmsprop'):
            self.pick(
                'model.lr', float(f'{rate:.2g}'), 'usual for these networks, times the root of batch / 64 above 64'
            )
        if budget.optimizer != 'adamw':
            self.pick('model.optimizer', _optimizer(budget.optimizer, rate), 'as asked')
        if job.task != 'Classification':
            return
        if job.outputs > 1 and train < 100_000:
            self.pick('model.smoothing', 0.1, 'few samples are learnt by heart otherwise')
        counts = target.counts
        even = sum(counts) / max(len(counts), 1)
        if counts and min(counts) < _RARE * even and min(counts) > 0:
            weights = [float(f'{min((even / count) ** 0.5, _HEAVIEST):.3g}') for count in counts]
            rarest = min(counts) / sum(counts)
            because = (
                f'the rarest class has {rarest:.2%} of the samples; roots of even / own share, at most {_HEAVIEST:g}'
            )
            self.pick('model.class_weights', weights, because, 'none: rare classes would hardly be learnt')

    def _name_data(self, job: Job, goal: _Goal, limits: Limits, trial: Trial, train: int) -> None:
        data = self.data
        whole = trial.window == goal.size and goal.word == ''
        if data.target.codes is not None:
            because = f'the targets hold {_some(data.target.codes)}, which stand for the classes 0, 1, …'
            self.pick('data.values', data.target.codes, because)
        self._normalise(job)
        if data.has(NOT_FINITE):
            self.pick('data.nonfinite', 'skip', 'some samples hold NaN or Inf')
        if data.has(UNKNOWN_TARGETS):
            self.pick('data.missing', True, 'some values of the targets are NaN: they are left out of the loss')
        word = goal.word or ('patch' if job.dense else 'crop')
        if word == 'resize' and trial.window == goal.size:
            self.pick('data.resize', list(goal.size), goal.because)
        elif not whole:
            bound = goal.because if trial.window == goal.size else f'memory: {bytes_text(self.budget.bytes)}'
            self.pick(f'data.{word}', list(trial.window), f'{text_of(trial.window)} of {text_of(data.size)}: {bound}')
        if word == 'patch' and not whole:
            self.pick(
                'data.patches',
                self._patches(trial, train),
                'windows a sample and epoch: about as much as a sample holds',
            )
            share = usual_overlap(self.choices.given('data.blend') or 'tent')
            words = f'tiles share {"a half" if share == 0.5 else "a quarter"}, where seams are blended'
            self.pick('data.overlap', share, words)
        batch = trial.batch * self.budget.devices
        bound = 'memory' if trial.batch < limits.most else f'the data: {limits.most} are enough for {train} samples'
        if self.budget.devices > 1:
            bound += f'; {trial.batch} on each of {self.budget.devices} devices'
        self.pick('data.batch_size', batch, bound)
        self._augment(job)

    def _normalise(self, job: Job) -> None:
        figures = self.data.amplitudes
        channel = widest(figures)
        if self.data.has(MIXED_DEPTHS) and channel is None and job.answer != 'values':
            because = 'samples of 8 and of 16 bits are not on one scale: each gets its own'
            self.pick('data.normalise', 'sample', because, 'set: those of 8 bits would be nearly 0 for the network')
            return
        if channel is None:
            alike = f'; log10 of the amplitudes of samples varies by {max(figures):.2g}' if figures else ''
            because = 'channels differ in units: each to mean 0 and deviation 1 of the training part' + alike
            self.pick('data.normalise', 'set', because)
            return
        because = (
            f'samples of channel {channel} differ in amplitude by orders of magnitude: log10 of their standard '
            f'deviations varies by {figures[channel]:.2g}'
        )
        if self.choices.given('model.network.arguments.amplitude'):
            self.pick('data.normalise', 'set', f'{because}, which the network reads (amplitude)')
            return
        if job.answer == 'values':
            because += '; whether the targets depend on that, a run sees, and says'
            self.pick('data.normalise', 'auto', because)
            return
        self.pick('data.normalise', 'sample', because, 'set: small samples would be nearly 0 for the network')

    def _patches(self, trial: Trial, train: int) -> int:
        cover = self.data.values_a_sample / positions(trial.window)
        fewest = 50 * trial.batch * self.budget.devices / max(train, 1)
        return min(max(1, math.ceil(cover), math.ceil(fewest)), 1000)

    def _augment(self, job: Job) -> None:
        deviations = [figures['std'] for figures in self.data.values]
        large = self.order > 1 and max(self.data.size) >= _PICTURE
        if large and job.task in _OF_CLASSES:
            name = 'volume' if self.order == 3 else 'image'
            because = (
                'what is usual for such data; where left and right differ, augmentation.flip=[] turns mirroring off'
            )
            self.pick('data.augmentation.preset', name, because)
            return
        mixed = self.data.has(MIXED_SCALES)  # noise for one position would drown others
        if deviations and job.task != 'Reconstruction' and not mixed:
            noise = float(f'{0.05 * min(deviations):.2g}')
            if noise:
                self.pick('data.augmentation.noise', noise, 'a twentieth of the smallest deviation of a channel')
        if job.task in _OF_CLASSES:
            self.pick('data.augmentation.gain', 0.1, 'brightness and amplitude differ by as much from record to record')

    def _name_trainer(self, job: Job, trial: Trial, train: int, goal: _Goal) -> None:
        budget, batch = self.budget, trial.batch * self.budget.devices
        aim, _ = self._batches(job, goal, train)
        windows = train * self.choices.made['data.patches'].value if 'data.patches' in self.choices.made else train
        steps = self._steps = max(1, math.ceil(windows / batch))
        if batch < aim:
            grouped = math.ceil(aim / batch)
            self.pick(
                'trainer.accumulate_grad_batches', grouped, f'steps of {aim} samples are wanted; memory holds {batch}'
            )
        epochs = min(max(math.ceil(_STEPS / steps), 10), 100)
        self.pick('trainer.max_epochs', epochs, f'{steps} steps an epoch, about {_STEPS} at least, 10 to 100 epochs')
        if budget.precision != '32-true':
            self.pick('trainer.precision', budget.precision, 'halves the maps that are kept')
        if budget.devices > 1:
            self.pick('trainer.devices', budget.devices, 'as asked')

    # What is said of it.

    def _point_out(self, job: Job, bench: TrialCosts, trial: Trial) -> None:
        for fault in self.data.faults:
            more = f' (and {fault["count"] - 1} more)' if fault['count'] > 1 else ''
            self.notes.append(f'{fault["kind"]}: {fault["text"]}{more}')

    def _bound(self, bench: TrialCosts, limits: Limits, trial: Trial) -> str:
        """What kept the plan from taking more: ``'memory'``, ``'hours'``, ``'data'`` or ``'given'`` words."""
        if limits.macs is not None and bench.macs(trial) > 0.5 * limits.macs:
            return 'hours'
        if limits.window == trial.window and self._goal_given and limits.batch is not None:
            return 'given'
        return 'memory' if trial.window != limits.goal or trial.batch < limits.most else 'data'

    def _forecast(
        self, job: Job, bench: TrialCosts, limits: Limits, trial: Trial, prediction: dict[str, Any]
    ) -> dict[str, Any]:
        net = bench.network(trial)
        needed = bench.bytes(trial)
        return {
            'window': list(trial.window),
            'batch': trial.batch,
            'width': trial.width,
            'level': trial.level,
            'job': asdict(job),
            'steps': self._steps,
            'bytes': needed,
            'share': round(needed / self.budget.bytes, 4),
            'bound': self._bound(bench, limits, trial),
            'parameters': sum(parameter.numel() for parameter in net.parameters()),
            'macs': bench.macs(trial),
            'prediction': prediction,
        }

    def _prediction(self, net: nn.Module, job: Job, trial: Trial) -> dict[str, Any]:
        """What predicting the median and the largest sample takes, and how many tiles are one batch."""
        tile = trial.window if 'data.patch' in self.choices.made else None
        most = self.data.most or self.data.size
        sizes = {'largest': trial.window} if tile is None else {'median': self.data.size, 'largest': most}
        varied = tile is not None and (self.data.least or most) != most
        blend = self.choices.given('data.blend') or 'tent'
        overlap = self.choices.given('data.overlap', usual_overlap(blend))
        needs = cache(partial(prediction_need, net, job=job, budget=self.budget))
        laid = self._laid(
            TileLayout(tile, 1 if varied else trial.batch, overlap=overlap, blend=blend), sizes['largest'], needs, job
        )
        found: dict[str, Any] = {}
        for name, size in sizes.items():
            need = needs(size, laid)
            found[name] = {'size': list(size), 'bytes': need.device, 'host': need.host, **asdict(laid)}
            found[name]['tile'] = None if tile is None else list(tile)
            if need.device > self.budget.bytes:
                self.notes.append(
                    f'predicting the {name} sample, {text_of(size)}, takes {bytes_text(need.device)}, more than the '
                    'budget, also in slabs; predict it on the CPU (--trainer.accelerator cpu)'
                )
        return found

    def _laid(
        self, laid: TileLayout, size: Size, needs: Callable[..., analysis.PredictionForecast], job: Job
    ) -> TileLayout:
        """Where the answer lies, on the device if it can, and the tiles of a batch that the budget holds."""
        if laid.tile is None:
            return laid
        tile = laid.tile
        laid = replace(laid, tiles=self.choices.given('data.tiles') or 1)
        whole = needs(size, laid).device
        if whole > self.budget.bytes:
            laid = replace(laid, result='host')
            summed = job.task == 'Segmentation'
            slabs = 'mdnc predict, validation and test hand' if summed else 'mdnc predict hands'
            others = '' if summed else ', as validation and test do'
            self.notes.append(
                f'predicting the largest sample, {text_of(size)}, takes {bytes_text(whole)}, more than the budget, '
                f'where its answer is blended as a whole on the device{others}; {slabs} '
                f'it on in slabs, which takes {bytes_text(needs(size, laid).device)}'
            )
        if self.choices.has('data.tiles'):
            return laid
        across = zip(self.data.size[1:], tile[1:], strict=True)
        row = math.prod(len(tile_starts(length, each, laid.overlap)) for length, each in across)
        return self._batched(laid, row, partial(needs, size))

    def _batched(
        self, laid: TileLayout, row: int, needs: Callable[[TileLayout], analysis.PredictionForecast]
    ) -> TileLayout:
        """The tiles of a batch that the budget holds, of those in a row across a sample."""
        one = needs(laid)
        # What the network takes is nearly linear in them: few forecasts are made in vain.
        left = 1 + (self.budget.bytes - one.device) / max(one.network, 1) / _TIGHTER
        for tiles in (count for count in _TILES if count <= min(row, left)):
            if needs(several := replace(laid, tiles=tiles)).device <= self.budget.bytes:
                because = f'of {row} tiles across a sample as one batch: memory holds them'
                self.pick('data.tiles', tiles, because, '1: takes the least memory')
                return several
        return laid


def _ordered(choices: Choices) -> list[str]:
    """Words as a person reads them: seed, model, data, trainer; given ones that nothing asked for too."""
    for word in choices.words:
        if word not in choices.made:
            choices.pick(word, None, GIVEN)
    heads = ['seed_everything', 'model.class_path', 'model.network', 'model', 'data.class_path', 'data.inputs']
    heads += ['data.targets', 'data.order', 'data', 'trainer']

    def place(word: str) -> int:
        return next((n for n, head in enumerate(heads) if word == head or word.startswith(f'{head}.')), len(heads))

    return sorted(choices.made, key=place)


def _resampled(data: Fingerprint, spacing: tuple[float, ...]) -> Fingerprint:
    """The same data at another spacing, by their median sizes."""
    if data.spacing is None or len(spacing) != data.order or data.least is None or data.most is None:
        return data
    scale = [have / want for have, want in zip(data.spacing, spacing, strict=True)]
    sizes: dict[str, Any] = {
        name: tuple(max(1, round(length * each)) for length, each in zip(getattr(data, name), scale, strict=True))
        for name in ('size', 'least', 'most')
    }
    return replace(data, spacing=spacing, **sizes)


def _agreeing(arguments: dict[str, Any], own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Planned lists as long as those that were given."""
    if 'layers' in given and 'strides' not in given and len(given['layers']) != len(own['layers']):
        for word in ('strides', 'kernel_size'):
            if word not in given:
                arguments.pop(word)
    return arguments


def _asked_for(name: str, job: Job, window: Size, width: int, design: Design) -> dict[str, Any]:
    """Of patch, strides and widths what a class of the user's own takes."""
    from mdnc.modules._external import import_network_class

    known = inspect.signature(import_network_class(name)).parameters
    depth = len(design.kernels)
    values = {
        'patch': list(window),
        'strides': [list(stride) for stride in design.strides],
        'kernels': [list(kernel) for kernel in design.kernels],
        'widths': [min(width * 2**level, _CAPS[len(window)]) for level in range(depth)],
        'in_planes': job.channels,
        'out_planes': job.outputs,
        'out_length': job.outputs,
        'order': len(window),
    }
    return {word: value for word, value in values.items() if word in known}


def _short(steps: tuple[Size, ...]) -> Any:
    """Per stage and axis, but no longer than needed: as many numbers as axes would be taken for one of each axis."""
    if len(set(steps)) == 1 and len(set(steps[0])) == 1:
        return steps[0][0]
    if len(steps) == len(steps[0]):
        return [list(each) for each in steps]
    return [each[0] if len(set(each)) == 1 else list(each) for each in steps]


def _some(values: Sequence[Any]) -> str:
    return ', '.join(map(str, values[:6])) + (', …' if len(values) > 6 else '')


def _escaped(name: str) -> str:
    return ''.join(f'[{letter}]' if letter in '*?[' else letter for letter in name)


def _optimizer(name: str, rate: float) -> dict[str, Any]:
    kinds = {'adam': 'Adam', 'sgd': 'SGD', 'momentum': 'SGD', 'rmsprop': 'RMSprop'}
    made = {'lr': float(f'{rate if name in ("adam", "rmsprop") else 0.01:.2g}')}
    if name == 'momentum':
        made['momentum'] = 0.9
    return {'class_path': f'torch.optim.{kinds[name]}', 'init_args': made}
