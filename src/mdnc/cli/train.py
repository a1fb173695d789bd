"""`mdnc fit | validate | test | predict`: a configuration in LightningCLI's syntax → task, data, trainer → a run."""

import re
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from mdnc._files import whole_file
from mdnc.cli import UsageError
from mdnc.cli.recipe import CONFIG, Request, read_request
from mdnc.training import run
from mdnc.training.checkpoint import FOLDER, numbered
from mdnc.training.guard import Guard
from mdnc.training.keeper import Keeper
from mdnc.training.signals import leave_at_once
from mdnc.training.tasks import Task


class _Command(LightningCLI):
    """Task, data and trainer of one configuration; `run_dir` is known before they are made."""

    def __init__(self, verb: str, request: Request) -> None:
        self.verb = verb
        self.request = request
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
                'description': _ABOUT[verb],
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=request.words,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Keeper, 'keeper')
        parser.add_lightning_class_args(Guard, 'guard')

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        config = self.config['trainer']
        name = self.request.configs[0].stem
        config['default_root_dir'] = str(config['default_root_dir'] or _place(name, free=self.verb == 'fit'))
        self.run_dir = Path(config['default_root_dir'])
        if self.verb == 'fit' and self.request.run_dir is None and numbered(self.run_dir / FOLDER):
            raise UsageError(
                f'{self.run_dir} holds a run already; go on with it by --continue {self.run_dir}, or choose another '
                '--trainer.default_root_dir'
            )

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[L.Callback]) -> L.Trainer:
        place = config.pop('default_root_dir')
        theirs = [*(config.pop('callbacks', None) or []), *callbacks]
        return run.make_trainer(place, callbacks=theirs, plugins=config.pop('plugins', None) or (), **config)

    def save_config(self) -> None:
        """Keep the full configuration beside the results."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with whole_file(self.run_dir / CONFIG) as file:
            file.write(self.parser.dump(self.config, skip_none=False).encode())

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that was given, or the best of the run."""
        return self.request.checkpoint or run.best_checkpoint(self.run_dir)


_ABOUT = {
    'fit': 'Train, test the best checkpoint and draw pictures. --continue RUN_DIR goes on with a run.',
    'validate': 'Figures of a checkpoint (--ckpt_path, else the best of the run) on the validation part.',
    'test': 'Figures and pictures of a checkpoint (--ckpt_path, else the best of the run) on the test part.',
    'predict': 'Write the outputs of a checkpoint (--ckpt_path, else the best of the run) to --output FILE.h5 or .npz.',
}


def _place(name: str, free: bool) -> Path:
    # runs/digits, runs/digits-2, …: the first that holds no checkpoint yet, or the last that does. All processes of a
    # run look before any of them has written one, so they agree.
    number, place = 1, Path('runs') / name
    while numbered(place / FOLDER):
        number, last = number + 1, place
        place = Path('runs') / f'{name}-{number}'
    return place if free or number == 1 else last


# jsonargparse lists every type that a value might have had; what the user did wrong is a line or two of it.
_NOISE = re.compile(
    r"Does not validate|Subtypes:|Errors:|Given value type|Given value: (NestedArg|Namespace|\{|\[)|.*'NoneType'>"
    '|Expected a path but'
)
_WORDS = {
    r"<class '([\w.]+)'>": r'\1',
    'Expected a dot import path string:': 'there is no class called',
    'Expected a int': 'Expected an int',
    'Parser key ': 'option ',
}


def _reason(error: Exception) -> str:
    lines = [line.strip().removeprefix('- ') for line in str(error).splitlines()]
    text = ' '.join(line if line[-1] in ':.' else f'{line}.' for line in lines if line and not _NOISE.match(line))
    for pattern, words in _WORDS.items():
        text = re.sub(pattern, words, text)
    return text


def _command(verb: str, argv: list[str]) -> _Command:
    leave_at_once()
    run.quieten()
    request = read_request(argv)
    if request.checkpoint and not request.checkpoint.is_file():
        raise UsageError(f'--ckpt_path: there is no checkpoint {request.checkpoint}')
    try:
        return _Command(verb, request)
    except (ArgumentError, ValueError, TypeError, OSError, MisconfigurationException) as error:
        raise UsageError(_reason(error)) from error


def fit(argv: list[str]) -> int:
    """Train; with ``--continue`` from the newest good checkpoint of the run, if it has one."""
    command = _command('fit', argv)
    start = command.request.checkpoint
    if command.request.run_dir is not None:
        start = start or run.start_point(command.run_dir)
        print(
            f'continuing from {start}' if start else f'{command.run_dir} has no checkpoint yet: starting over',
            flush=True,
        )
    if command.trainer.is_global_zero:
        command.save_config()
    run.fit(command.trainer, command.model, command.datamodule, start)
    return 0


def validate(argv: list[str]) -> int:
    """Print a checkpoint's figures on the validation part."""
    command = _command('validate', argv)
    command.trainer.validate(command.model, datamodule=command.datamodule, ckpt_path=command.checkpoint)
    return 0


def test(argv: list[str]) -> int:
    """Print a checkpoint's figures on the test part and draw its pictures."""
    command = _command('test', argv)
    run.test(command.trainer, command.model, command.datamodule, command.checkpoint)
    return 0


def predict(argv: list[str]) -> int:
    """Write a checkpoint's outputs with the samples' names."""
    from mdnc.training.prediction import PredictionWriter

    command = _command('predict', argv)
    output = command.request.output or command.run_dir / 'predictions.h5'
    command.trainer.callbacks.append(PredictionWriter(output))  # type: ignore[attr-defined]
    command.trainer.predict(
        command.model, datamodule=command.datamodule, ckpt_path=command.checkpoint, return_predictions=False
    )
    print(f'written: {output}')
    return 0
