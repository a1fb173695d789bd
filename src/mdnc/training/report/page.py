"""The page itself, filled in and written."""

from importlib.resources import files
from pathlib import Path

import jinja2

from mdnc._files import whole_file
from mdnc.training.evaluation import Evaluation
from mdnc.training.report import content
from mdnc.training.report.content import Report

_TEMPLATE = 'page.html.jinja'
_KINDS = {'classes': 'Each class', 'quantities': 'Each quantity'}


def _methods(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return ''
    if evaluation.samples < 2:
        return 'One sample alone says nothing of others, so there are no confidence intervals.'
    made = '; '.join(words if name == 'all' else f'{name}: {words}' for name, words in evaluation.methods.items())
    return f'Ranges are 95 % confidence intervals, for samples that are independent of each other ({made}).'


def write_report(path: Path, report: Report) -> Path:
    """Write a report.

    Args:
        path: The HTML file in the run's folder, which is written whole or not at all.
        report: What it says.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files(__package__).joinpath(_TEMPLATE).read_text(encoding='utf-8'))
    run = content.run_facts(path.parent)
    heads, rows = content.table(report)
    page = template.render(
        title=report.title,
        facts=list(content.facts(report, run)),
        tiles=content.tiles(report),
        methods=_methods(report.evaluation),
        each=_KINDS.get(report.evaluation.kind, '') if report.evaluation else '',
        heads=heads,
        rows=rows,
        charts=content.charts(report),
        curves=content.curves(report),
        worst=content.worst(report),
        network=content.network_picture(report, run.get('input')),
        texts=content.texts(path.parent),
    )
    with whole_file(path) as file:
        file.write(page.encode())
    return path
