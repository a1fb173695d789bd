"""Docstrings in Markdown: their sections, links to what they name, tables of arguments and errors."""

import html
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from griffe import Docstring, DocstringSection, DocstringSectionKind

from tools.reference.members import Member
from tools.reference.site import Site

Sections = dict[str, list[DocstringSection]]


def sections_of(words: str) -> Sections:
    """The sections of a docstring by kind, or by title where they have none."""
    found: Sections = {}
    for section in Docstring(words).parse('google', warnings=False):
        name = section.kind.value if section.kind is not DocstringSectionKind.admonition else section.title or ''
        found.setdefault(name, []).append(section)
    return found


def descriptions(sections: Sections) -> dict[str, str]:
    """The words on each argument."""
    given = [each for section in sections.get('parameters', []) for each in section.value]
    return {each.name.lstrip('*'): each.description for each in given}


def examples_of(sections: Sections) -> Iterator[str]:
    """The examples of a docstring, as ``>>>`` lines."""
    for section in [*sections.get('examples', []), *sections.get('Example', [])]:
        value = section.value
        yield '\n'.join(text for _, text in value) if isinstance(value, list) else str(value.description)


def texts(sections: Sections, here: Member, site: Site) -> Iterator[str]:
    """The paragraphs that belong to no section."""
    yield from (linked(str(each.value), here, site) for each in sections.get('text', []))


def linked(text: str, here: Member, site: Site) -> str:
    """Words in single backticks that name something public lead to its page."""

    def link(found: re.Match[str]) -> str:
        page = site.link(found[1], here)
        return f'`{found[1]}`' if page is None else f'[`{found[1]}`]({page})'

    return re.sub(r'(?<![`\w])`([A-Za-z_][\w.]*)`(?!`)', link, text)


def cell(text: str, here: Member, site: Site) -> str:
    """Words as a cell of a table."""
    return linked(' '.join(text.split()), here, site).replace('|', '\\|')


def shown_type(annotation: Any) -> str:
    """A type, without the modules of its names."""
    if annotation is inspect.Parameter.empty:
        return ''
    shown = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    shown = re.sub(r'\b(?:[a-z_]+\.)+(?=[A-Za-z])', '', shown).replace('NoneType', 'None')
    return f'<code>{html.escape(shown, quote=False).replace("|", "&#124;")}</code>'


def shown_value(value: Any) -> str:
    """A default."""
    if inspect.isfunction(value) or inspect.isclass(value):
        return str(value.__name__)
    return repr(value) if len(repr(value)) < 40 else '…'


def table(
    parameters: Iterable[inspect.Parameter],
    described: Mapping[str, str],
    here: Member,
    site: Site,
    head: str = 'Argument',
) -> str:
    """Arguments with type, default where any has one, and words."""
    some = list(parameters)
    titles = [head, 'Type', 'Default', 'Description']
    rows = [
        [f'`{each.name}`', shown_type(each.annotation), _default(each), cell(described[each.name], here, site)]
        for each in some
    ]
    if all(each.default is each.empty for each in some):
        titles, *rows = ([*row[:2], row[3]] for row in [titles, *rows])
    # On a narrow screen each row of these becomes a paragraph.
    return f'<div class="arguments" markdown="1">\n\n{rows_of(titles, rows)}\n\n</div>'


def _default(parameter: inspect.Parameter) -> str:
    return '' if parameter.default is parameter.empty else f'`{shown_value(parameter.default)}`'


def rows_of(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table."""
    titles = list(titles)
    return '\n'.join(f'| {" | ".join(row)} |' for row in [titles, [':--'] * len(titles), *rows])


def returned(sections: Sections, here: Member, site: Site) -> Iterator[str]:
    """What is given back, and which errors are raised."""
    for section in sections.get('returns', []):
        yield '**Returns**\n\n' + linked(' '.join(each.description for each in section.value), here, site)
    yield from raised(sections, here, site)


def raised(sections: Sections, here: Member, site: Site) -> Iterator[str]:
    """Which errors are raised when."""
    for section in sections.get('raises', []):
        rows = [[f'`{each.annotation}`', cell(each.description, here, site)] for each in section.value]
        yield '**Raises**\n\n' + rows_of(['Error', 'When'], rows)
