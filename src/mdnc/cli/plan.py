"""``mdnc plan``: choose a network and settings for data and a memory budget, and write a recipe."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mdnc.analysis.table import bytes_text
from mdnc.cli import UsageError
from mdnc.cli.forecast import OPTIMIZER_HELP, bytes_of
from mdnc.cli.networks import Parser, refusals
from mdnc.cli.recipe import find_config
from mdnc.planning import Budget, Plan, plan
from mdnc.planning.budget import PRECISIONS
from mdnc.planning.page import write_page
from mdnc.planning.recipe import flat
from mdnc.training.run import quieten

_SECTIONS = ('--data.', '--model.', '--trainer.', '--keeper.', '--guard.', '--seed_everything')


def run(argv: Sequence[str] | None = None) -> int:
    """Make the requested plan and write it.

    Args:
        argv: What follows ``mdnc plan`` on the command line.

    Returns:
        The exit status, 0.

    Raises:
        UsageError: An argument was refused, or no plan is possible; the message gives the reason.
    """
    quieten()
    own, given = _divided(list(sys.argv[2:] if argv is None else argv))
    arguments = _parser().parse_args(own)
    with refusals():
        words = _words(arguments, given)
        if not arguments.data and 'data.class_path' not in words and 'data.inputs' not in words:
            raise UsageError('plan: no data: name a file, folder or pattern, or a recipe with data by --config')
        made = plan(_data(arguments), _budget(arguments), words, **_options(arguments))
        files = made.save(arguments.output)
        files.append(write_page(made, arguments.output))
    print(_report(made))
    print('written: ' + ', '.join(map(str, files)))
    return 0


def _divided(argv: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The command's own arguments, and settings of the recipe."""
    own: list[str] = []
    given: dict[str, Any] = {}
    rest = iter(argv)
    for word in rest:
        if not word.startswith(_SECTIONS):
            own.append(word)
            continue
        name, equals, value = word[2:].partition('=')
        text = value if equals else next(rest, None)
        if text is None:
            raise UsageError(f'--{name}: a value is missing')
        given[name.replace('.init_args', '')] = _value(name, text)
    return own, given


def _value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f'--{name} {text}: {" ".join(str(error).split())}') from error


def _parser() -> Parser:
    parser = Parser(
        prog='mdnc plan',
        description=(
            'Plan a run: read the data once, choose a network and settings that fit the budget, and write a '
            'recipe with the reason of each choice.'
        ),
        epilog='Settings of a recipe can be given, as in --data.order 1 --data.batch_size 8 --model.lr 0.001: they '
        'are kept, and '
        'the rest is planned around them. `mdnc fit --config plan.yaml` runs the plan.',
    )
    add = parser.add_argument
    add('data', nargs='*', metavar='DATA', help='inputs: files, folders or patterns, as for data.inputs of a recipe')
    add('--targets', metavar='WHERE', help='targets, as for data.targets of a recipe')
    add(
        '-c',
        '--config',
        action='append',
        default=[],
        metavar='FILE',
        help='a recipe, or a part of one; its settings are kept',
    )
    add(
        '--output',
        type=Path,
        default=Path('plan.yaml'),
        metavar='FILE',
        help='where to write the recipe (default: plan.yaml)',
    )
    add('--memory', metavar='BYTES', help='memory of one device, as in 8GiB (default: what is free now)')
    add('--reserve', metavar='BYTES', help='memory to leave unused (default: 0)')
    add(
        '--hours',
        type=float,
        metavar='N',
        help='how long the run may take (default: the usual number of epochs, however long)',
    )
    add('--devices', type=int, default=1, metavar='N', help='number of devices (default: 1)')
    add('--device', choices=('cpu', 'cuda'), help='type of device (default: cuda if available)')
    add(
        '--precision',
        choices=PRECISIONS,
        help='numerical precision of training (default: bf16-mixed on cuda, else 32-true)',
    )
    add('--optimizer', default='adamw', metavar='WORD', help=OPTIMIZER_HELP)
    add('--task', metavar='CLASS', help='task, as model.class_path of a recipe (default: chosen by the targets)')
    add(
        '--network',
        metavar='NAME',
        help='network class or preset, or package.Class(patch, strides, widths) (default: chosen by the task)',
    )
    add('--like', metavar='RUN', help='use the network of this run or recipe, so that its weights can be loaded')
    add('--dry', action='store_true', help='do not time training steps')
    add('--check', action='store_true', help='run one training step, and compare its memory with the estimate')
    return parser


def _words(arguments: Namespace, given: dict[str, Any]) -> dict[str, Any]:
    words: dict[str, Any] = {}
    for name in arguments.config:
        recipe = yaml.safe_load(find_config(name).read_text())
        if not isinstance(recipe, dict):
            raise ValueError(f'--config {name} is no recipe')
        words |= flat(recipe)
    named = {
        'data.targets': arguments.targets,
        'model.class_path': arguments.task,
        'model.network.name': arguments.network,
    }
    return words | {word: value for word, value in named.items() if value is not None} | flat(given)


def _data(arguments: Namespace) -> Any:
    return arguments.data[0] if len(arguments.data) == 1 else arguments.data or None


def _options(arguments: Namespace) -> dict[str, Any]:
    return {'like': arguments.like, 'dry': arguments.dry, 'check': arguments.check}


def _budget(arguments: Namespace) -> Budget:
    return Budget(
        memory=None if arguments.memory is None else bytes_of(arguments.memory),
        reserve=0 if arguments.reserve is None else bytes_of(arguments.reserve),
        hours=arguments.hours,
        devices=arguments.devices,
        precision=arguments.precision,
        optimizer=arguments.optimizer,
        device=arguments.device,
    )


def _report(made: Plan) -> str:
    forecast, data = made.forecast, made.fingerprint
    rows = [
        f'data      {data.samples} samples of {data.channels} × {" × ".join(map(str, data.size))}',
        f'task      {made.words["model.class_path"]}',
        f'network   {made.words["model.network.name"]}, {forecast["parameters"]:,} parameters',
        f'window    {" × ".join(map(str, forecast["window"]))}, batch {made.words["data.batch_size"]}',
        f'memory    {bytes_text(forecast["bytes"])}, {forecast["share"]:.0%} of the budget',
    ]
    if 'hours' in made.measured:
        rows.append(f'time      {made.measured["step_seconds"]:g} s a step, about {made.measured["hours"]:.2g} h')
    if check := made.measured.get('check'):
        rows.append(
            f'checked   a real step took {bytes_text(check["measured"])}, {check["error"]:+.1%} of the forecast'
        )
    return '\n'.join([*rows, *(f'note      {note}' for note in made.notes)])
