"""`mdnc fit | validate | test | predict`: reads a configuration, makes task, data and trainer, and runs them."""

import contextlib
import difflib
import functools
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from mdnc import checkpoints
from mdnc._files import whole_file
from mdnc.checkpoints import Answer
from mdnc.cli import UsageError
from mdnc.cli.help import ABOUT, CALLBACKS, class_help, command_help, find_class, known_classes, parameters
from mdnc.cli.networks import near
from mdnc.cli.recipe import CONFIG, Request, keep_plan, latest_run, read_request, run_places
from mdnc.training import run
from mdnc.training.checkpoint import FOLDER, numbered
from mdnc.training.data.split import Split
from mdnc.training.process_signals import leaving_at_once
from mdnc.training.run_lock import TakenError, claimed, is_first_process
from mdnc.training.tasks import Task


class _Command(LightningCLI):
    """Task, data and trainer of one configuration; `run_dir` is chosen before they are made."""

    def __init__(self, verb: str, request: Request, claims: contextlib.ExitStack) -> None:
        self.verb = verb
        self.request = request
        self.claims = claims
        super().__init__(
            Task,
            L.LightningDataModule,
            save_config_callback=None,
            trainer_defaults=run.DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={
                'exit_on_error': False,
                'allow_abbrev': False,
                'prog': f'mdnc {verb}',
                'description': ABOUT[verb],
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=request.words,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, name)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            reason = _reason(error)
            raise UsageError(reason + _hint(reason, list(parser._option_string_actions))) from error

    def before_instantiate_classes(self) -> None:
        config = self.config['trainer']
        given = config['default_root_dir']
        self.run_dir = self._given(Path(given)) if given else self._chosen(Path('runs'), self.request.configs[0].stem)
        config['default_root_dir'] = str(self.run_dir)

    def _given(self, place: Path) -> Path:
        """The folder that was given, if this command may use it."""
        meant = self.request.run_dir or self.request.named
        other = meant is not None and place.resolve() != meant.resolve()
        if other and (self.request.run_dir or numbered(place / FOLDER)):
            raise UsageError(f'two runs are given, {meant} and --trainer.default_root_dir {place}: give only one')
        if self.verb == 'fit':
            self._claim(place)
            if self.request.run_dir is None and numbered(place / FOLDER):
                raise UsageError(
                    f'{place} already contains a run: continue it with --continue {place}, or choose another '
                    '--trainer.default_root_dir'
                )
        return place

    def _chosen(self, parent: Path, name: str) -> Path:
        """runs/digits, runs/digits-2, …: the first without a checkpoint and not in use; or the last."""
        if self.verb != 'fit':
            return latest_run(parent, name)
        places = run_places(parent, name)
        for number in itertools.count(len(places)):
            place = parent / (name if number == 1 else f'{name}-{number}')
            with contextlib.suppress(TakenError):
                self._claim(place)
                if not numbered(place / FOLDER):
                    return place
        raise AssertionError

    def _claim(self, place: Path) -> None:
        if is_first_process():
            self.claims.enter_context(claimed(place))

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[L.Callback]) -> L.Trainer:
        place = config.pop('default_root_dir')
        theirs = [*(config.pop('callbacks', None) or []), *callbacks]
        if self.verb == 'fit' and config.get('max_epochs') == 0:  # in Python such a trainer can still test
            raise ValueError('trainer.max_epochs must be at least 1, or -1 for no end, not 0: nothing would be trained')
        return run.make_trainer(place, callbacks=theirs, plugins=config.pop('plugins', None) or (), **config)

    def full_config(self) -> str:
        """The whole configuration without the run folder, which may be moved."""
        config = self.config.clone()
        config['trainer']['default_root_dir'] = None
        return str(self.parser.dump(config, skip_none=False))

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that was given, or the best of the run."""
        try:
            return self.request.checkpoint or run.best_checkpoint(self.request.named or self.run_dir)
        except FileNotFoundError as error:
            raise UsageError(str(error)) from error


# jsonargparse lists every type that a value might have had; only a line or two of it say what is wrong.
_NOISE = re.compile(
    r"Does not validate|Subtypes:|Errors:|Given value type|Given value: (NestedArg|Namespace|\{|\[)|.*'NoneType'>"
    '|Expected a path but'
)
_WORDS = {
    r"<class '([\w.]+)'>": r'\1',
    'Expected a dot import path string:': 'unknown class',
    'Expected a int': 'Expected an int',
    'Parser key ': 'option ',
    # Where a word may stand for a group of options: neither a word nor the group, or something within the group.
    r'unknown class (\w+)\. Expected a typing\.Literal\[(.*?)\]\. Given value: \w+\.': r'\1 is none of \2.',
    r'(?<=\.) Expected a typing\.Literal\[[^]]*\]\.$': '',
    r'a typing\.Literal\[([^]]*)\]': r'one of \1',
}


def _reason(error: Exception) -> str:
    lines = [line.strip().removeprefix('- ') for line in str(error).splitlines()]
    text = ' '.join(line if line[-1] in ':.' else f'{line}.' for line in lines if line and not _NOISE.match(line))
    for pattern, words in _WORDS.items():
        text = re.sub(pattern, words, text)
    return text


_CLASS = re.compile(r".*class_path '([\w.]+)':.* (?:Option '|unrecognized arguments: --)([\w.]+)")
_OPTION = re.compile(
    r"unrecognized arguments: (?:--)?([\w.]+)|(?:()|Group '(\w+)' does not accept o|O)ption '([\w.]+)'"
)
_NAME = re.compile(r'option "(model|data)": unknown class (\w+)\.')


def _hint(reason: str, options: Sequence[str] = ()) -> str:
    """The nearest known name for one that is unknown."""
    if match := _CLASS.search(reason):
        path, (first, _, rest) = match[1], match[2].partition('.')
        known = parameters(find_class('model', path))
        if rest and is_dataclass(known[first].default):
            return f' {near(rest, [each.name for each in fields(known[first].default)])}'
        return '' if rest else f' {near(first, known)}'
    if match := _NAME.search(reason):
        return f' {near(match[2], known_classes(match[1]))}'
    if match := _OPTION.search(reason):
        word = '.'.join(filter(None, match.groups()))
        found = difflib.get_close_matches(f'--{word}', options, n=1)
        return f' did you mean {found[0].removeprefix("--")}?' if found else ''
    return ''


class _Record(L.Callback):
    """Writes the configuration to the run folder when training starts, after a checkpoint has been loaded."""

    def __init__(self, command: _Command) -> None:
        self._command = command

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            with whole_file(Path(trainer.default_root_dir) / CONFIG) as file:
                file.write(self._command.full_config().encode())
            for config in self._command.request.configs:
                keep_plan(config, Path(trainer.default_root_dir))


# Settings of the data that a checkpoint fixes; and settings that, changed within a run, would move samples to other
# parts or change their order.
_LEARNT = ('model.class_path', 'data.init_args.normalise', 'data.init_args.classes')
_READ = ('window', 'hop', 'horizon', 'spacing', 'resize', 'values', 'columns')
_FIXED = (
    *(*_LEARNT, 'seed_everything', 'data.class_path', 'data.init_args.seed', 'data.init_args.split'),
    *(f'data.init_args.{name}' for name in _READ),
)


def _refuse_other_run(command: _Command, names: Sequence[str]) -> None:
    path = (command.request.named or command.run_dir) / CONFIG
    if not path.is_file():
        return
    saved, given = yaml.safe_load(path.read_text()), yaml.safe_load(command.full_config())
    for name in names:
        before, now = (functools.reduce(_part, name.split('.'), config) for config in (saved, given))
        if name.endswith('.split') and isinstance(before, dict):
            before = {**vars(Split()), **before}  # words that the version did not have that began the run
        follows = name.endswith('.normalise') and now == 'auto'  # what the network was trained with
        if before != now and before is not ... and not follows:
            raise UsageError(
                f'{name.replace(".init_args", "")} is {before!r} in {path} and cannot be changed to {now!r} '
                'in this run; start a new run'
            )


def _part(config: Any, name: str) -> Any:
    return config.get(name, ...) if isinstance(config, dict) else ...


def _answer_help(verb: str, argv: Sequence[str]) -> None:
    # jsonargparse's own help lists every class of torch that would be accepted, and every argument of Lightning's
    # trainer.
    for place, word in enumerate(argv):
        if word in ('-h', '--help'):
            print(command_help(verb))
            raise SystemExit(0)
        option, equals, name = word.partition('=')
        if option in ('--model.help', '--data.help'):
            following = argv[place + 1] if place + 1 < len(argv) else ''
            print(class_help(option[2:].partition('.')[0], name if equals or following.startswith('-') else following))
            raise SystemExit(0)


@contextlib.contextmanager
def _command(verb: str, argv: list[str]) -> Iterator[_Command]:
    with leaving_at_once(), contextlib.ExitStack() as claims:
        run.quieten()
        _answer_help(verb, argv)
        words = ['--help' if word == '--trainer.help' else word for word in argv]
        request = read_request(words, several=verb == 'predict')
        if request.checkpoint and not request.checkpoint.is_file():
            what = 'is a folder, not a checkpoint' if request.checkpoint.is_dir() else 'does not exist'
            raise UsageError(f'--ckpt_path: {request.checkpoint} {what}')
        try:
            command = _Command(verb, request, claims)
        except (ArgumentError, ValueError, TypeError, OSError, MisconfigurationException, TakenError) as error:
            reason = _reason(error)
            raise UsageError(reason + _hint(reason)) from error
        try:
            if verb != 'fit' and request.named is not None:
                _refuse_other_run(command, _LEARNT)
            yield command
        except (MisconfigurationException, TakenError) as error:
            raise UsageError(str(error)) from error


def fit(argv: list[str]) -> int:
    """Train; with ``--continue`` from the newest undamaged checkpoint of the run, if it has one."""
    with _command('fit', argv) as command:
        start = command.request.checkpoint
        if command.request.run_dir is not None:
            start = start or run.start_point(command.run_dir)
            print(
                f'continuing from {start}' if start else f'{command.run_dir} has no checkpoint yet: starting over',
                flush=True,
            )
            if start:
                _refuse_other_run(command, _FIXED)
        command.trainer.callbacks.append(_Record(command))  # type: ignore[attr-defined]
        run.fit(command.trainer, command.model, command.datamodule, start)
    return 0


def validate(argv: list[str]) -> int:
    """Print a checkpoint's metrics on the validation data."""
    with _command('validate', argv) as command:
        command.trainer.validate(command.model, datamodule=command.datamodule, ckpt_path=command.checkpoint)
    return 0


def test(argv: list[str]) -> int:
    """Print a checkpoint's metrics on the test data, draw its pictures and write its report."""
    with _command('test', argv) as command:
        run.test(command.trainer, command.model, command.datamodule, command.checkpoint)
    return 0


def _average(command: _Command) -> None:
    """Take further networks into the prediction."""
    if not isinstance(command.model, Task):
        raise UsageError(f'several networks are averaged by a task of mdnc, not by {type(command.model).__name__}')
    _warn_of_other_split(command)
    allowed = [command.model.hparams['network']['name']]  # that of the recipe, which is trusted
    others = {str(path): _answer_of(path, allowed) for path in command.request.others}
    command.model.average_with(others, command.request.spread, str(command.checkpoint))


def _answer_of(path: Path, allowed: list[str]) -> Answer:
    try:
        return Answer(checkpoints.load(path, allow=allowed))
    except (ValueError, OSError) as error:
        raise UsageError(f'{path}: {error}') from error


def _warn_of_other_split(command: _Command) -> None:
    """Say it where networks would answer what they were trained on."""
    given = yaml.safe_load(command.full_config())
    data = given['data'].get('init_args') or {}
    if data.get('predict') is not None:
        return
    for path in command.request.others:
        config = path.resolve().parents[1] / CONFIG
        saved = yaml.safe_load(config.read_text()) if config.is_file() else None
        split = functools.reduce(_part, ('data', 'init_args', 'split'), saved)
        if split is not ... and split != data.get('split'):
            warnings.warn(
                f'{config.parent} divided its samples otherwise: it may have been trained on samples of the test part '
                'that is predicted here; name others by --data.predict',
                stacklevel=2,
            )


def predict(argv: list[str]) -> int:
    """Write a checkpoint's outputs with the samples' names; of several the average."""
    from mdnc.training.prediction import PredictionWriter

    with _command('predict', argv) as command:
        try:
            writer = PredictionWriter(command.request.output, command.request.format)
        except ValueError as error:
            raise UsageError(f'--output, --format: {error}') from error
        command.trainer.callbacks.append(writer)  # type: ignore[attr-defined]
        if command.request.others:
            _average(command)
        command.trainer.predict(
            command.model, datamodule=command.datamodule, ckpt_path=command.checkpoint, return_predictions=False
        )
        if command.trainer.is_global_zero and not writer.samples:
            raise UsageError('there is nothing to predict: the test part is empty; give samples with --data.predict')
        print(f'written: {writer.path}')
    return 0
