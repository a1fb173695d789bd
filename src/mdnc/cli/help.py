"""Help of the training commands, and of the arguments of classes of tasks and data."""

import importlib
import inspect
import re
import textwrap
from dataclasses import is_dataclass
from typing import Any

import lightning as L

from mdnc import training
from mdnc.cli import UsageError
from mdnc.cli.networks import ARGUMENT, near
from mdnc.cli.recipe import recipe_names
from mdnc.training.nonfinite_loss import Guard
from mdnc.training.saving import Keeper
from mdnc.training.tasks import Task

BASES: dict[str, type] = {'model': Task, 'data': L.LightningDataModule}
CALLBACKS: dict[str, type] = {'keeper': Keeper, 'guard': Guard}

ABOUT = {
    'fit': 'Train a network, test its best checkpoint, and write metrics, pictures and a report to the run folder.',
    'validate': 'Compute the metrics of a checkpoint on the validation data.',
    'test': 'Compute the metrics of a checkpoint on the test data; write pictures and a report to the run folder.',
    'predict': 'Apply a checkpoint to samples and write its predictions to files. Several runs, --config A B C, or\n'
    'several checkpoints of one, --ckpt_path A B C, are averaged.',
}
_OPTIONS = {
    '-c, --config RECIPE': 'recipe file, run folder, or a recipe of mdnc ({recipes}); may be repeated, later ones win',
    '--continue RUN_DIR': 'continue a run from its newest undamaged checkpoint',
    '--ckpt_path FILE': 'checkpoint to use (default: {checkpoint})',
    '--output PATH': 'file or folder for the predictions (default: in the run folder)',
    '--format FORMAT': 'hdf5, npz, zarr, csv, nifti, png or tiff (default: by the suffix of --output, else csv where a '
    'sample has one answer, and for maps the format of the inputs)',
    '--spread': 'also write how much averaged networks differ: standard deviations of values; for classes the entropy '
    'of the mean and the disagreement',
    '--seed_everything N': 'seed of all random numbers (default: 0)',
    '--print_config': 'print the complete configuration and exit',
    '-h, --help': 'print this help and exit',
}
_CHECKPOINT = {'fit': 'none, training starts from the beginning'}
_ONLY = {'--output PATH': 'predict', '--format FORMAT': 'predict', '--spread': 'predict', '--continue RUN_DIR': 'fit'}


def command_help(verb: str) -> str:
    """The help of a training command: its own options, and where those of a recipe are explained.

    Args:
        verb: ``'fit'``, ``'validate'``, ``'test'`` or ``'predict'``.
    """
    options = [
        _entry(
            name,
            text.format(recipes=', '.join(recipe_names()), checkpoint=_CHECKPOINT.get(verb, 'the best of the run')),
        )
        for name, text in _OPTIONS.items()
        if _ONLY.get(name, verb) == verb
    ]
    classes = {owner: ', '.join(sorted(known_classes(owner))) for owner in BASES}
    callbacks = [
        _entry(f'--{owner}.{name}', f'{_words(kind)[name]} {_default(owner, parameter.default)}')
        for owner, kind in CALLBACKS.items()
        for name, parameter in parameters(kind).items()
    ]
    trainer = [name for name in inspect.signature(L.Trainer.__init__).parameters if name != 'self']
    return '\n'.join(
        [
            f'usage: mdnc {verb} --config RECIPE [--SECTION.NAME VALUE ...]\n\n{ABOUT[verb]}\n\noptions:',
            *options,
            '\nsettings of a recipe, each of which can be given here, as in --model.lr 0.001:',
            _entry('--model CLASS', f'the task: {classes["model"]}; --model.help CLASS lists its arguments'),
            _entry('--data CLASS', f'the data: {classes["data"]}; --data.help CLASS lists its arguments'),
            *callbacks,
            _entry('--trainer.NAME', f"argument of Lightning's Trainer: {', '.join(trainer)}; --trainer.help explains"),
        ]
    )


def _entry(name: str, text: str) -> str:
    lines = textwrap.wrap(text, 92, break_on_hyphens=False)
    return '\n'.join(f'  {head:<24}  {line}' for head, line in zip([name, *[''] * len(lines)], lines, strict=False))


def class_help(owner: str, name: str) -> str:
    """Describe a class and its arguments.

    Args:
        owner: ``'model'`` or ``'data'``.
        name: The class, by its name or its full name; empty: all classes are listed.

    Raises:
        UsageError: The class is unknown.
    """
    if not name:
        rows = [f'  {word:<16} {_sentence(kind)}' for word, kind in sorted(known_classes(owner).items())]
        return '\n'.join(
            [f'--{owner} CLASS, or the full name of your own class; --{owner}.help CLASS lists its arguments', *rows]
        )
    record = _records(owner).get(name)
    kind = record or find_class(owner, name)
    words, place = _words(kind), f'{owner}.{name.lower()}' if record else owner
    lines = [f'--{place}: {_sentence(kind)}' if record else f'--{owner} {name}: {_sentence(kind)}', '']
    for argument, parameter in parameters(kind).items():
        value = getattr(record(), argument) if record else parameter.default
        text = f'  --{place}.{argument}  {_default(owner, value)}  {words.get(argument, "")}'
        lines += textwrap.wrap(text, 118, subsequent_indent=' ' * 8, break_on_hyphens=False)
    return '\n'.join(lines)


def _records(owner: str) -> dict[str, type]:
    """The dataclasses that are arguments of the classes, by name."""
    kinds = [find_class(owner, name) for name in known_classes(owner)]
    found = {type(parameter.default) for kind in kinds for parameter in parameters(kind).values()}
    return {kind.__name__: kind for kind in found if is_dataclass(kind)}


def known_classes(owner: str) -> dict[str, type]:
    """The classes that can be given: those of this library and of modules that were imported."""
    found, left = {}, [BASES[owner]]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        if kind.__name__ in training.__all__ or not kind.__module__.startswith(('mdnc.', 'lightning.')):
            found[kind.__name__] = kind
    return found


def find_class(owner: str, name: str) -> type:
    """A class by its name.

    Raises:
        UsageError: The class is unknown.
    """
    known = known_classes(owner)
    module, _, attribute = name.rpartition('.')
    try:
        found = getattr(importlib.import_module(module), attribute) if module else known.get(name)
    except (ImportError, AttributeError):
        found = None
    if not isinstance(found, type):
        raise UsageError(f'--{owner}: unknown class {name}: {near(name, known)}')
    return found


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class by name, with those that it passes on to its base classes."""
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(kind.__mro__):
        if '__init__' in vars(base) and base.__module__.startswith(('mdnc.', kind.__module__)):
            own = list(inspect.signature(base).parameters.values())
            handed_on = found if any(each.kind is each.VAR_KEYWORD for each in own) else {}
            found = handed_on | {each.name: each for each in own if each.kind is each.POSITIONAL_OR_KEYWORD}
    return found


def _words(kind: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        said = ARGUMENT.findall((inspect.getdoc(base) or '').partition('Args:\n')[2].partition('\n\n')[0])
        found |= {name: _plain(text) for name, text in said if not text.startswith('See ')}
    return found


def _default(owner: str, value: Any) -> str:
    if value is inspect.Parameter.empty:
        return '(required)'
    if is_dataclass(value):
        return f'(has arguments of its own: --{owner}.help {type(value).__name__})'
    return f'(default: {"null" if value is None else value})'


def _sentence(kind: type) -> str:
    return _plain((inspect.getdoc(kind) or '').partition('\n\n')[0])


def _plain(text: str) -> str:
    return re.sub(r'`+', '', ' '.join(text.split()))
