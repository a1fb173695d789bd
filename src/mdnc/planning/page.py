"""A plan as a page that a person reads: one file, by day and night, on a phone too."""

import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from mdnc._files import whole_file
from mdnc.analysis.table import bytes_text, count_text, seconds_text
from mdnc.modules._sizes import text as size_text
from mdnc.planning.fingerprint import Fingerprint
from mdnc.planning.plans import Plan, value_text

_TEMPLATE = 'page.html.jinja'
_ROWS = 12  # channels or classes that a table shows


def page_of(plan: Plan, recipe: str = 'plan.yaml') -> str:
    """The page of a plan.

    Args:
        plan: The plan.
        recipe: Name of its YAML file.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files(__package__).joinpath(_TEMPLATE).read_text(encoding='utf-8'))
    data = plan.fingerprint
    rendered: str = template.render(
        title=f'{plan.words["model.class_path"]} of {data.samples:,} samples, {data.channels} × {size_text(data.size)}',
        tiles=list(_tiles(plan)),
        share=min(plan.forecast['share'], 1.0),
        notes=plan.notes,
        facts=list(_facts(data)),
        channels=_values(data),
        classes=list(_classes(data)),
        examples=plan.examples,
        choices=[(choice.word, value_text(choice.value), choice.because, choice.instead) for choice in plan.choices],
        forecast=list(_forecast(plan)),
        yaml=plan.to_yaml(),
        recipe=recipe,
    )
    return rendered


def write_page(plan: Plan, path: str | os.PathLike[str]) -> Path:
    """Write the page of a plan beside its recipe.

    Args:
        plan: The plan.
        path: The YAML file; the page has its name with ``.html``.
    """
    page = Path(path).with_suffix('.html')
    with whole_file(page) as file:
        file.write(page_of(plan, Path(path).name).encode())
    return page


def _tiles(plan: Plan) -> Iterator[tuple[str, str, str]]:
    forecast, words = plan.forecast, plan.words
    yield 'memory', bytes_text(forecast['bytes']), f'{forecast["share"]:.0%} of {bytes_text(plan.budget_bytes)}'
    yield 'window', size_text(tuple(forecast['window'])), f'batch {words["data.batch_size"]}'
    yield 'network', words['model.network.name'], f'{count_text(forecast["parameters"])} parameters'
    epochs = words['trainer.max_epochs']
    yield 'epochs', f'{epochs}', f'{forecast["steps"]:,} steps each'
    if 'hours' in plan.measured:
        hours = plan.measured['hours']
        shown = f'{hours:.2g} h' if hours >= 1 else f'{60 * hours:.2g} min'
        yield 'time', shown, f'{seconds_text(plan.measured["step_seconds"])} a step, timed here'
    else:
        yield 'time', '–', 'not timed (--dry)'


def _facts(data: Fingerprint) -> Iterator[tuple[str, str]]:
    yield 'samples', f'{data.samples:,}' + ''.join(f'; {part} {count:,}' for part, count in data.parts.items())
    if data.varied and data.least and data.most:
        yield 'sizes', f'{size_text(data.least)} to {size_text(data.most)}, median {size_text(data.size)}'
    else:
        yield 'size', size_text(data.size)
    if data.spacing:
        yield 'spacing', ' × '.join(f'{each:g}' for each in data.spacing)
    if any(data.borders):
        yield 'empty borders', ' × '.join(f'{each:.0%}' for each in data.borders)
    yield 'stored as', f'{", ".join(data.dtypes) or "not known"}, {bytes_text(data.bytes)}'
    target = data.target
    kinds = {'none': 'none', 'names': 'names of classes', 'classes': 'class numbers', 'numbers': 'quantities'}
    kinds |= {'labels': 'labels of 0 and 1'}
    yield 'targets', kinds.get(target.kind, f'a {target.kind}') + (f', {target.outputs}' if target.outputs else '')
    if target.ignore is not None:
        yield 'left out', f'{target.ignore} in targets'
    for number, figures in list(target.objects.items())[:_ROWS]:
        yield (
            f'objects of {_name(data, int(number))}',
            (
                f'mostly {size_text(tuple(figures["median"]))}, at most {size_text(tuple(figures["largest"]))} '
                f'({figures["parts"]:,} measured)'
            ),
        )
    for period in data.periods:
        yield 'period', f'{period["length"]:g} values ({period["share"]:.0%} of the power)'
    if data.groups:
        yield 'groups in names', f'{data.groups["count"]}, such as {data.groups["example"]}'


def _name(data: Fingerprint, number: int) -> str:
    classes = data.target.classes
    return classes[number] if classes and number < len(classes) else f'class {number}'


def _values(data: Fingerprint) -> list[tuple[str, dict[str, Any]]]:
    rows = [(f'channel {number}', figures) for number, figures in enumerate(data.values[:_ROWS])]
    rows += [(f'channel {number}, foreground', figures) for number, figures in enumerate(data.foreground[:_ROWS])]
    return rows + [(f'target {number}', figures) for number, figures in enumerate(data.target.values[:_ROWS])]


def _classes(data: Fingerprint) -> Iterator[tuple[str, int, float]]:
    shares = data.target.shares
    ranked = sorted(range(len(shares)), key=lambda number: (shares[number], number))
    shown = sorted({*ranked[: _ROWS // 2], *ranked[-_ROWS // 2 :]}) if len(ranked) > _ROWS else range(len(ranked))
    for number in shown:
        yield _name(data, number), data.target.counts[number], shares[number]


def _forecast(plan: Plan) -> Iterator[tuple[str, str]]:
    forecast = plan.forecast
    yield (
        'a training step',
        f'{bytes_text(forecast["bytes"])} at its worst moment, {count_text(forecast["macs"])} multiply-adds',
    )
    for name, figures in forecast['prediction'].items():
        how = f' in tiles of {size_text(tuple(figures["tile"]))}' if figures['tile'] else ''
        if figures['tiles'] > 1:
            how += f', {figures["tiles"]} as one batch'
        if figures['result'] == 'host':
            how += ', its answer handed on in slabs'
        yield (
            f'prediction of the {name} sample',
            f'{size_text(tuple(figures["size"]))}{how}: {bytes_text(figures["bytes"])}',
        )
    if 'timed' in plan.measured:
        timed = plan.measured['timed']
        yield 'timed', f'{timed["batch"]} × {size_text(tuple(timed["window"]))} in {seconds_text(timed["seconds"])}'
    check = plan.measured.get('check')
    if check:
        yield 'checked', f'a real step took {bytes_text(check["measured"])}, {check["error"]:+.1%} of the forecast'
        yield (
            'checked',
            f'prediction of {size_text(tuple(check["prediction_size"]))} took {bytes_text(check["prediction"])}, '
            f'{check["prediction_error"]:+.1%} of the forecast',
        )
