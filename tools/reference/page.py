"""The Markdown of one page: class line, call, chart, arguments, operators, properties, methods, examples."""

import html
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from griffe import Docstring, DocstringSection, DocstringSectionKind

from mdnc.modules import Block, Network
from tools.reference import chart, examples
from tools.reference.members import Attribute, Member, attributes, is_network

_TORCH = 'https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html'
_HEAD = '| Argument | Type | Description |\n| :-- | :-- | :-- |'
_OPTIONS = '| Option | Type | Default | Description |\n| :-- | :-- | :-- | :-- |'
Sections = dict[str, list[DocstringSection]]


@dataclass(frozen=True)
class Site:
    """What pages refer to.

    Args:
        members: All that is public.
        sources: Path of the page of each source file.
    """

    members: list[Member]
    sources: Mapping[Any, str]

    @property
    def importable(self) -> dict[str, str]:
        """The package of each name."""
        return {member.name: member.package for member in self.members}

    def find(self, value: Any) -> Member | None:
        """The member that an object is."""
        return next((member for member in self.members if member.value is value), None)

    def link(self, name: str, here: Member) -> str | None:
        """Address of the page of a name, as seen from another page."""
        member = next((member for member in self.members if name in (member.name, member.path, member.title)), None)
        return None if member is None or member is here else _address(here, f'reference/{member.page}.md')


def render(member: Member, site: Site) -> str:
    """The page of a member."""
    sections = _sections(member.words)
    if member.is_class and 'parameters' not in sections:
        sections |= _inherited(member.value)
    parts = [f'# {member.title}', _line(member, site), _call(member), *_faces(member, site)]
    runs = [*examples.longer(member.name), *(examples.run(text, site.importable) for text in _examples(sections))]
    parts += [_text(each, member, site) for each in sections.get('text', [])]
    parts += _chart(member, runs)
    parts += _arguments(member, sections, site)
    parts += _others(sections, member, site)
    if member.is_class:
        parts += _members_of(member, site)
    parts += [] if not runs else ['## Examples', *(_tabs(number, run) for number, run in enumerate(runs, 1))]
    return '\n\n'.join(part for part in parts if part) + '\n'


# ---- The head ----


def _line(member: Member, site: Site) -> str:
    kind = 'Class' if member.is_class else 'Preset' if member.is_preset else 'Function'
    words = [kind]
    if is_network(member.value):
        public = [site.find(base) for base in member.value.__mro__[1:]]
        bases = [f'[`{base.name}`]({site.link(base.name, member)})' for base in public if base is not None]
        words += [*bases[:1], f'[`nn.Module`]({_TORCH})']
    path, line = member.source
    words += [f'[Source]({_address(member, site.sources[path])}#__codelineno-0-{line})']
    return ' · '.join(words)


def _call(member: Member) -> str:
    """How it is called, with the documented arguments and their defaults."""
    if member.is_class and issubclass(member.value, BaseException):
        return ''
    signature = inspect.signature(member.value)
    shown = [
        each for each in signature.parameters.values() if each.kind is not each.KEYWORD_ONLY or not _hidden(member)
    ]
    more = [] if len(shown) == len(signature.parameters) else ['**options']
    words = [_argument(each) for each in shown if each.name != 'self'] + more
    given = textwrap.fill(', '.join(words), 76, break_long_words=False, break_on_hyphens=False)
    name = {'Network': 'net', 'Block': 'block'}.get(_family(member), 'made') if member.is_class else ''
    call = f'{name} = {member.path}' if name else member.path
    body = f'{call}(\n{textwrap.indent(given, "    ")}\n)' if given else f'{call}()'
    return f'```python\n{body}\n```'


def _hidden(member: Member) -> bool:
    return any(each in member.value.__mro__ for each in (Network, Block)) if member.is_class else False


def _family(member: Member) -> str:
    return next((base.__name__ for base in (Network, Block) if member.is_class and issubclass(member.value, base)), '')


def _argument(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: '*', parameter.VAR_KEYWORD: '**'}.get(parameter.kind, '')
    default = '' if parameter.default is parameter.empty else f'={_value(parameter.default)}'
    return f'{stars}{parameter.name}{default}'


def _value(value: Any) -> str:
    if inspect.isfunction(value) or inspect.isclass(value):
        return str(value.__name__)
    return repr(value) if len(repr(value)) < 40 else '…'


def _faces(member: Member, site: Site) -> Iterator[str]:
    words = []
    for order, name in member.faces.items():
        link = site.link(name, member)
        words.append(f'**{order}-D**' if link is None else f'[{order}-D]({link})')
    if words:
        yield ' · '.join(words)


# ---- Words ----


def _sections(words: str) -> Sections:
    found: Sections = {}
    for section in Docstring(words).parse('google', warnings=False):
        name = section.kind.value if section.kind is not DocstringSectionKind.admonition else section.title or ''
        found.setdefault(name, []).append(section)
    return found


def _inherited(cls: type) -> Sections:
    """The arguments that the nearest base of the library describes."""
    for base in cls.__mro__[1:]:
        sections = _sections(inspect.cleandoc(base.__doc__ or '')) if base.__module__.startswith('mdnc') else {}
        if 'parameters' in sections:
            return {'parameters': sections['parameters']}
    return {}


def _examples(sections: Sections) -> Iterator[str]:
    for section in [*sections.get('examples', []), *sections.get('Example', [])]:
        value = section.value
        yield '\n'.join(text for _, text in value) if isinstance(value, list) else str(value.description)


def _text(section: DocstringSection, here: Member, site: Site) -> str:
    return _linked(str(section.value), here, site)


def _linked(text: str, here: Member, site: Site) -> str:
    """Words in single backticks that name something public lead to its page."""

    def linked(found: re.Match[str]) -> str:
        link = site.link(found[1], here)
        return f'`{found[1]}`' if link is None else f'[`{found[1]}`]({link})'

    return re.sub(r'(?<![`\w])`([A-Za-z_][\w.]*)`(?!`)', linked, text)


def _cell(text: str, here: Member, site: Site) -> str:
    return _linked(' '.join(text.split()), here, site).replace('|', '\\|')


def _type(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ''
    shown = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    shown = re.sub(r'\b(?:[a-z_]+\.)+(?=[A-Za-z])', '', shown).replace('NoneType', 'None')
    return f'<code>{html.escape(shown).replace("|", "&#124;")}</code>'


# ---- Arguments ----


def _arguments(member: Member, sections: Sections, site: Site) -> Iterator[str]:
    described = _descriptions(sections)
    if not described:
        return
    parameters = [
        each for each in inspect.signature(member.value).parameters.values() if each.name.lstrip('*') in described
    ]
    options = [each for each in parameters if each.kind is each.KEYWORD_ONLY and _hidden(member)]
    documented = [each for each in parameters if each not in options]
    if documented:
        yield '## Arguments\n\n**Requires**\n\n' + _table(documented, described, member, site)
    if options:
        rows = [_option(each, described[each.name], member, site) for each in options]
        yield '**Options**, by keyword; at their defaults the network is the documented one.\n\n' + '\n'.join(
            [_OPTIONS, *rows]
        )


def _option(each: inspect.Parameter, words: str, member: Member, site: Site) -> str:
    return f'| `{each.name}` | {_type(each.annotation)} | `{_value(each.default)}` | {_cell(words, member, site)} |'


def _descriptions(sections: Sections) -> dict[str, str]:
    given = [each for section in sections.get('parameters', []) for each in section.value]
    return {each.name.lstrip('*'): each.description for each in given}


def _table(parameters: Iterable[inspect.Parameter], described: Mapping[str, str], member: Member, site: Site) -> str:
    rows = [
        f'| `{each.name}` | {_type(each.annotation)} | {_cell(described[each.name], member, site)} |'
        for each in parameters
    ]
    return '\n'.join([_HEAD, *rows])


def _others(sections: Sections, member: Member, site: Site, level: str = '**{}**') -> Iterator[str]:
    for name in ('Shapes', 'Source'):
        for section in sections.get(name, []):
            yield level.format(name) + '\n\n' + _linked(str(section.value.description), member, site)
    for section in sections.get('returns', []):
        words = ' '.join(each.description for each in section.value)
        yield level.format('Returns') + '\n\n' + _linked(words, member, site)
    for section in sections.get('raises', []):
        rows = [f'| `{each.annotation}` | {_cell(each.description, member, site)} |' for each in section.value]
        yield level.format('Raises') + '\n\n' + '\n'.join(['| Error | When |', '| :-- | :-- |', *rows])


# ---- Operators, properties, methods ----


def _members_of(member: Member, site: Site) -> Iterator[str]:
    found = attributes(member.value)
    shared = {
        each.name: base
        for each in found
        if each.kind != 'property' and (base := _shared_by(each, member, site)) is not None
    }
    own = [each for each in found if each.name not in shared]
    if forward := next((each for each in found if each.name == 'forward'), None):
        yield '## Operators\n\n### `__call__`\n\n```python\ny = net(x)\n```\n\n' + '\n\n'.join(
            _described(forward, member, site)
        )
        own = [each for each in own if each is not forward]
    for title, kinds in (('Properties', ('property',)), ('Methods', ('method', 'class method'))):
        some = [each for each in own if each.kind in kinds]
        others = [each for each in found if each.kind in kinds and each.name in shared and each.name != 'forward']
        if some or others:
            yield f'## {title}'
        for each in some:
            yield '\n\n'.join([f'### `{each.name}`', _usage(each, member), *_described(each, member, site)])
        if others:
            rows = [_row(each, shared[each.name], member, site) for each in others]
            yield '\n'.join(['| Shared with its kind | |', '| :-- | :-- |', *rows])


def _shared_by(attribute: Attribute, member: Member, site: Site) -> Member | None:
    """The public base on whose page an attribute stands."""
    for base in reversed(member.value.__mro__[1:]):
        public = site.find(base)
        if public is not None and attribute.owner in base.__mro__:
            return public
    return None


def _usage(attribute: Attribute, member: Member) -> str:
    name = {'Network': 'net', 'Block': 'block'}.get(_family(member), member.name[0].lower() + member.name[1:])
    if attribute.kind == 'class method':
        name = member.name
    if attribute.kind == 'property':
        return f'```python\n{name}.{attribute.name}\n```'
    words = [_argument(each) for each in list(inspect.signature(attribute.value).parameters.values())[1:]]
    return f'```python\n{name}.{attribute.name}({", ".join(words)})\n```'


def _described(attribute: Attribute, member: Member, site: Site) -> Iterator[str]:
    sections = _sections(attribute.words)
    yield from (_text(each, member, site) for each in sections.get('text', []))
    described = _descriptions(sections)
    parameters = inspect.signature(attribute.value).parameters.values()
    known = [each for each in parameters if each.name in described]
    if known:
        yield '**Requires**\n\n' + _table(known, described, member, site)
    yield from _others(sections, member, site)
    for text in _examples(sections):
        yield _tabs(1, examples.run(text, site.importable))


def _row(attribute: Attribute, base: Member, member: Member, site: Site) -> str:
    first = re.split(r'(?<=[.:])\s', ' '.join(attribute.words.split()), maxsplit=1)[0].rstrip(':')
    return f'| [`{attribute.name}`]({site.link(base.name, member)}#{attribute.name}) | {_cell(first, member, site)} |'


# ---- Charts and examples ----


def _chart(member: Member, runs: list[examples.Run]) -> Iterator[str]:
    if not member.is_class or not issubclass(member.value, Network | Block):
        return
    made = next((value for run in runs for value in examples.instances(run, member.value)), None)
    if made is None:
        return
    drawn = chart.of_plan(_deeper(made).plan) if isinstance(made, Network) else chart.of_block(made.plan)
    yield f'```mermaid\n{drawn}\n```'


def _deeper(net: Any) -> Any:
    """The network of an example with enough stages to tell what repeats; examples are kept small."""
    config = {**net.config, 'layers': [2, 2, 2], 'device': 'meta'}
    if 'out_size' in config:
        config['out_size'] = [64] * net.plan.order
    return type(net)(**config)


def _tabs(number: int, run: examples.Run) -> str:
    tabs = f'=== "Codes"\n    ```python linenums="1"\n{textwrap.indent(run.code, "    ")}\n    ```\n\n'
    if run.output:
        tabs += f'=== "Output"\n    ```text\n{textwrap.indent(run.output, "    ")}\n    ```'
    return f'???+ example "Example {number}"\n{textwrap.indent(tabs, "    ")}'


def _address(here: Member, path: str) -> str:
    """Address of a page of the site as seen from the page of a member."""
    depth = len(f'reference/{here.page}'.split('/')) - 1
    return '../' * depth + path
