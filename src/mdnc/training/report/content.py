"""What a report says: read off the run's folder, the task and what the test found."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from mdnc.analysis import picture
from mdnc.modules import Network
from mdnc.training import run_record
from mdnc.training.evaluation import Evaluation, Figure, Worst
from mdnc.training.history import duration
from mdnc.training.pictures import Panel, Style, curves_panel, maps_panel
from mdnc.training.report import formatting
from mdnc.training.report.drawing import Drawing, as_drawing, draw, page_colours

CONFIG = 'config.yaml'
History = Sequence[dict[str, float]]
Baselines = Mapping[str, Mapping[str, float]]


class Tile(NamedTuple):
    """A figure that stands out."""

    label: str
    value: str
    interval: str
    beside: str = ''  # what other methods reach


class Row(NamedTuple):
    """A line of a table: its name, and value and interval of each cell."""

    name: str
    cells: list[tuple[str, str]]


@dataclass(frozen=True)
class Report:
    """All that a report needs to know.

    Args:
        title: What stands over it.
        network: The network.
        task: What it was trained for.
        checkpoint: Name of the checkpoint that was tested.
        history: One row an epoch.
        labels: Metrics to draw, with what to write over them.
        figures: What the test logged, ``test/accuracy``, ….
        baselines: What other methods reach, by metric and method.
        evaluation: What the test found; None for a task that keeps nothing of its samples.
        panels: What the picture of the run shows beside the curves.
        worst: The worst samples.
        style: How their maps are drawn.
    """

    title: str
    network: nn.Module
    task: str
    checkpoint: str
    history: History
    labels: dict[str, str]
    figures: dict[str, float]
    evaluation: Evaluation | None
    panels: Sequence[Panel] = ()
    worst: Sequence[Worst] = ()
    style: Style = field(default_factory=Style)
    baselines: Baselines = field(default_factory=dict)


def tiles(report: Report) -> list[Tile]:
    """The figures of all samples together, but for those that the table of each class or quantity has."""
    found = dict(report.evaluation.overall) if report.evaluation else {}
    each = report.evaluation.each if report.evaluation else {}
    # Of quantities whose units may differ there is no mean that says anything, unless there is one to compare it with.
    left_out = {'rmse', 'mae'} - {*report.baselines} if len(each) > 1 and not found else {}
    for name, value in report.figures.items():
        word = name.removeprefix('test/')
        if not (any(word.endswith(f'_{key}') for key in each) or word in left_out):
            found.setdefault(word, Figure(value))
    return [
        Tile(
            formatting.label(name),
            formatting.text(name, figure.value),
            formatting.interval(name, figure),
            _beside(name, report.baselines),
        )
        for name, figure in found.items()
    ]


def _beside(name: str, baselines: Baselines) -> str:
    return ', '.join(f'{method} {formatting.text(name, value)}' for method, value in baselines.get(name, {}).items())


def table(report: Report) -> tuple[list[str], list[Row]]:
    """The figures of each class or quantity: heads and rows; no rows where there is but one."""
    each = report.evaluation.each if report.evaluation else {}
    if len(each) < 2:
        return [], []
    names = list(dict.fromkeys(name for figures in each.values() for name in figures))
    rows = [
        Row(
            key,
            [
                (formatting.text(name, figure.value), formatting.interval(name, figure))
                for name, figure in ((name, figures.get(name, Figure(math.nan))) for name in names)
            ],
        )
        for key, figures in each.items()
    ]
    return [formatting.label(name) for name in names], rows


def curves(report: Report) -> list[Drawing]:
    """A chart for each metric over the epochs."""
    return [
        draw(panel, f'{label}, epoch by epoch')
        for name, label in report.labels.items()
        for panel in curves_panel(report.history, {name: label})
    ]


def charts(report: Report) -> list[Drawing]:
    """What the task shows of the test, then what its figures do."""
    found = report.evaluation.charts if report.evaluation else {}
    maps = [] if report.worst and report.worst[0].examples and report.worst[0].examples[0].maps else report.panels
    own = [] if found else [draw(panel, 'What the test found') for panel in maps]
    return own + [draw(panel, name) for name, panel in found.items()]


def worst(report: Report) -> list[tuple[str, str, Drawing]]:
    """The worst samples: name, words and picture."""
    return [
        (each.examples[0].name, _about(each), draw(_panel(each, report.style), f'sample {number}'))
        for number, each in enumerate(report.worst, 1)
        if each.examples
    ]


def _panel(each: Worst, style: Style) -> Panel:
    # Its name stands over it.
    return maps_panel([replace(example, name='') for example in each.examples], style)


def _about(each: Worst) -> str:
    said = each.examples[0].words
    return f'{said}; loss {each.loss:.4g}' if said else f'loss {each.loss:.4g}'


def network_picture(report: Report, input_shape: Sequence[int] | None) -> Drawing | None:
    """The network as it is drawn by ``mdnc draw``; None for one that has no plan."""
    if not isinstance(report.network, Network):
        return None
    size = None if input_shape is None else tuple(input_shape)
    with page_colours():
        try:
            figure = picture.figure(report.network, size)
        except (ValueError, TypeError):  # a size that only tiles of it have
            figure = picture.figure(report.network)
        return as_drawing(figure, 'The network, part by part', whites=True)


def facts(report: Report, run: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What was trained on what, in lines of two parts."""
    yield 'task', report.task
    count = sum(parameter.numel() for parameter in report.network.parameters())
    yield 'network', f'{type(report.network).__name__}, {count:,} parameters'
    if run.get('data'):
        yield 'data', str(run['data'])
    parts = run.get('samples') or {}
    tested = {'test': report.evaluation.samples} if report.evaluation else {}
    said = [f'{number:,} for {words_}' for words_, number in {**parts, **tested}.items() if number is not None]
    if said:
        yield 'samples', ', '.join(said)
    if run.get('input'):
        yield 'input', ' × '.join(map(str, run['input'])) + ' (channels first)'
    if report.history:
        seconds = sum(row.get('seconds', 0.0) for row in report.history)
        count = len(report.history)
        yield 'training', f'{count} epoch{"s"[: count > 1]} in {duration(seconds)}' + _where(run)
    yield 'tested', report.checkpoint
    yield from _memory(run)
    versions = [f'{name} {run[name]}' for name in ('mdnc', 'torch') if run.get(name)]
    if versions:
        yield 'made with', ', '.join(versions)


def _where(run: dict[str, Any]) -> str:
    if not run.get('device'):
        return ''
    many = f', {run["processes"]} processes' if run.get('processes', 1) > 1 else ''
    return f' on {run["device"]}{many}, precision {run.get("precision")}'


def _memory(run: dict[str, Any]) -> Iterator[tuple[str, str]]:
    forecast, used = run.get('forecast_bytes'), run.get('used_bytes')
    if forecast is None and used is None:
        return
    said = 'no forecast' if forecast is None else f'{formatting.mebibytes(forecast)} forecast'
    spent = 'not measured' if used is None else f'{formatting.mebibytes(used)} used at most'
    measured = '' if used is None else f' ({run.get("measured")})'
    yield 'memory', f'{said}, {spent}{measured}'


def run_facts(folder: Path) -> dict[str, Any]:
    """What the run's folder says of its training; nothing where it was trained elsewhere."""
    try:
        found = json.loads((folder / run_record.FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def texts(folder: Path) -> dict[str, str]:
    """Files of the folder that are shown as they are, by their titles."""
    files = {'Configuration': CONFIG, 'Layers': 'network.txt'}
    return {
        f'{title} ({name})': (folder / name).read_text(errors='replace')
        for title, name in files.items()
        if (folder / name).is_file()
    }
