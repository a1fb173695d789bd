"""The Markdown of one page: class line, call, chart, arguments, operators, properties, methods, examples."""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from mdnc.modules import Block, Network
from mdnc.training import Task
from tools.reference import chart, examples
from tools.reference.members import Attribute, Member, attributes, is_network
from tools.reference.site import Site, address
from tools.reference.words import (
    Sections,
    cell,
    descriptions,
    examples_of,
    linked,
    raised,
    returned,
    rows_of,
    sections_of,
    shown_value,
    table,
    texts,
)

_TORCH = 'https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html'
_ICONS = {'Class': 'material-cube-outline', 'Function': 'material-function', 'Preset': 'material-tune'}
_OPTIONS = '**Options**, by keyword; at their defaults the {} is the documented one.\n\n'


def render(member: Member, site: Site) -> str:
    """The page of a member."""
    sections = sections_of(member.words)
    if 'parameters' not in sections:
        sections |= _inherited(member.value) if member.is_class else _borrowed(member, sections, site)
    runs = [*examples.longer(member.name), *(examples.run(text, site.importable) for text in examples_of(sections))]
    made = next((value for run in runs for value in examples.instances(run, _made(member))), None)
    parts = [f'# {member.title}', _line(member, site), _call(member), *_faces(member, site)]
    parts += [*texts(sections, member, site), *_chart(made), *_generic(member, site)]
    parts += _arguments(member, sections, site)
    if not _shapes(sections):
        parts += [*_others(sections, member, site), *returned(sections, member, site)]
    if member.is_class:
        parts += _members_of(member, sections, made, site)
    parts += [] if not runs else ['## Examples', *(_tabs(number, run) for number, run in enumerate(runs, 1))]
    return _of_order('\n\n'.join(part for part in parts if part) + '\n', member)


def _made(member: Member) -> type:
    return Network if member.is_preset else member.value if member.is_class else type(None)


def _of_order(text: str, member: Member) -> str:
    """What is written for any number of spatial axes, for that of a 1-D, 2-D or 3-D class."""
    order = int(member.name[-2]) if member.faces else 0
    if not order:
        return text
    if order == 1:
        text = re.sub(r'\(([LM])1, …\)', r'(\g<1>1,)', text)
    text = re.sub(r'\b([LM])1, …', lambda found: ', '.join(f'{found[1]}{axis + 1}' for axis in range(order)), text)
    return re.sub(r'([1k]) × … × \1', lambda found: ' × '.join([found[1]] * order), text)


# ---- The head ----


def _line(member: Member, site: Site) -> str:
    kind = 'Class' if member.is_class else 'Preset' if member.is_preset else 'Function'
    words = [f':{_ICONS[kind]}: {kind}']
    if is_network(member.value):
        public = [site.find(base) for base in member.value.__mro__[1:]]
        bases = [f'[`{base.name}`]({site.link(base.name, member)})' for base in public if base is not None]
        words += [*bases[:1], f'[:material-graph-outline: `nn.Module`]({_TORCH})']
    path, line = member.source
    source = address(member, site.sources[path])
    words += [f'[:octicons-file-code-24: Source]({source}#__codelineno-0-{line})']
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
    call = f'{_variable(member)} = {member.path}' if member.is_class else member.path
    body = f'{call}(\n{textwrap.indent(given, "    ")}\n)' if given else f'{call}()'
    return f'```python\n{body}\n```'


def _hidden(member: Member) -> bool:
    return member.is_class and issubclass(member.value, Network | Block)


def _variable(member: Member) -> str:
    """What an object of a class is called."""
    families = {Network: 'net', Block: 'block', Task: 'task'}
    family = next((name for base, name in families.items() if issubclass(member.value, base)), '')
    return family or re.findall(r'[A-Z]+[a-z]*', member.name)[-1].lower()


def _argument(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: '*', parameter.VAR_KEYWORD: '**'}.get(parameter.kind, '')
    default = '' if parameter.default is parameter.empty else f'={shown_value(parameter.default)}'
    return f'{stars}{parameter.name}{default}'


def _faces(member: Member, site: Site) -> Iterator[str]:
    words = []
    for order, name in member.faces.items():
        link = site.link(name, member)
        words.append(f'**{order}-D**' if link is None else f'[{order}-D]({link})')
    if words:
        yield ' · '.join(words)


# ---- Words that stand elsewhere ----


def _inherited(cls: type) -> Sections:
    """The arguments that the nearest base of the library describes."""
    for base in cls.__mro__[1:]:
        sections = sections_of(inspect.cleandoc(base.__doc__ or '')) if base.__module__.startswith('mdnc') else {}
        if 'parameters' in sections:
            return {'parameters': sections['parameters']}
    return {}


def _borrowed(member: Member, sections: Sections, site: Site) -> Sections:
    """The arguments that a function has in common with one that its words name."""
    own = {each.name for each in inspect.signature(member.value).parameters.values()}
    for name in re.findall(r'(?<!`)`(\w+)`(?!`)', ' '.join(str(each.value) for each in sections.get('text', []))):
        other = site.named(name)
        lent = sections_of(other.words) if other is not None and not other.is_class else {}
        if own and own <= descriptions(lent).keys():
            return {'parameters': lent['parameters']}
    return {}


def _generic(member: Member, site: Site) -> Iterator[str]:
    """The words on what a class has in common with those of other orders."""
    bases = member.value.__mro__[1:] if member.faces else ()
    for base in bases:
        if not base.__name__.startswith('_'):
            return
        for text in texts(sections_of(inspect.cleandoc(base.__doc__ or '')), member, site):
            yield text.replace('2d', member.name[-2:])


# ---- Arguments ----


def _arguments(member: Member, sections: Sections, site: Site) -> Iterator[str]:
    if member.is_preset:
        yield _settings(member.value)
    described = descriptions(sections)
    if not described:
        return
    if member.faces and 'block' in described:
        described['block'] = _kinds(described['block'], member.name[-2:])
    parameters = [
        each for each in inspect.signature(member.value).parameters.values() if each.name.lstrip('*') in described
    ]
    options = [each for each in parameters if each.kind is each.KEYWORD_ONLY and _hidden(member)]
    documented = [each for each in parameters if each not in options]
    if documented:
        yield '## Arguments\n\n**Requires**\n\n' + table(documented, described, member, site)
    if options:
        kind = 'block' if issubclass(member.value, Block) else 'network'
        yield _OPTIONS.format(kind) + table(options, described, member, site, 'Option')


def _kinds(words: str, ending: str) -> str:
    """Kinds of blocks with the pages of their classes."""
    for kind, name in (('plain', 'BlockPlain'), ('bottleneck', 'BlockBottleneck')):
        words = re.sub(rf"(``'{kind}'``) \(([^)]*)\)", rf'\1 (`{name}{ending}`, \2)', words)
    return words


def _settings(preset: Any) -> str:
    """What a preset sets, beside what it leaves to its caller."""
    given = {name: getattr(preset, name) for name in ('channel', 'layers', 'block')}
    given |= {'order': preset.order, 'kernel_size': preset.kernel_size, **preset.options}
    rows = [[f'`{name}`', f'`{value!r}`'] for name, value in given.items()]
    return '## Settings\n\n' + rows_of(['Argument', 'Value'], rows)


def _shapes(sections: Sections) -> tuple[str, str] | None:
    """The shapes of a network's or block's input and output."""
    for section in sections.get('Shapes', []):
        given, arrow, result = str(section.value.description).partition('→')
        if arrow and given.startswith('x '):
            return given.strip().removeprefix('x '), result.strip().removeprefix('y ')
    return None


def _others(sections: Sections, member: Member, site: Site) -> Iterator[str]:
    for name in ('Shapes', 'Source'):
        for section in sections.get(name, []):
            yield f'**{name}**\n\n{linked(str(section.value.description), member, site)}'


# ---- Operators, properties, methods ----


def _members_of(member: Member, sections: Sections, made: Any, site: Site) -> Iterator[str]:
    found = [each for each in attributes(member.value) if not _lacks(made, each)]
    shared = {
        each.name: base
        for each in found
        if each.kind != 'property' and (base := _shared_by(each, member, site)) is not None
    }
    own = [each for each in found if each.name not in shared]
    if forward := next((each for each in found if each.name == 'forward'), None):
        yield from _operator(forward, member, sections, site)
        own = [each for each in own if each is not forward]
    for title, kinds in (('Properties', ('property',)), ('Methods', ('method', 'class method'))):
        some = [each for each in own if each.kind in kinds]
        others = [each for each in found if each.kind in kinds and each.name in shared and each.name != 'forward']
        if some or others:
            yield f'## {title}'
        for each in some:
            yield '\n\n'.join([f'### `{each.name}`', _usage(each, member), *_described(each, member, site)])
        for base in dict.fromkeys(shared[each.name] for each in others):
            rows = [_row(each, base, member, site) for each in others if shared[each.name] is base]
            yield f'Shared by every [`{base.name}`]({site.link(base.name, member)}), on whose page they are described:'
            yield rows_of(['Method', 'What it does'], rows)


def _lacks(made: Any, attribute: Attribute) -> bool:
    """Whether a network has nothing to give for a property, as an encoder has no single size of its input."""
    return isinstance(made, Network) and attribute.kind == 'property' and not hasattr(made, attribute.name)


def _shared_by(attribute: Attribute, member: Member, site: Site) -> Member | None:
    """The public base on whose page an attribute stands."""
    for base in reversed(member.value.__mro__[1:]):
        public = site.find(base)
        if public is not None and attribute.owner in base.__mro__:
            return public
    return None


def _operator(forward: Attribute, member: Member, sections: Sections, site: Site) -> Iterator[str]:
    shapes = _shapes(sections)
    yield f'## Operators\n\n### `__call__`\n\n```python\ny = {_variable(member)}(x)\n```'
    words = sections_of(forward.words)
    if shapes is None:
        yield from _described(forward, member, site)
        return
    yield from texts(words, member, site)
    described = descriptions(words)
    described['x'] += f' Its shape is {shapes[0]}.'
    known = [each for each in inspect.signature(forward.value).parameters.values() if each.name in described]
    yield '**Requires**\n\n' + table(known, described, member, site)
    yield '**Returns**\n\n' + rows_of(['Value', 'Shape'], [['`y`', cell(shapes[1], member, site)]])
    yield from raised(sections, member, site)


def _usage(attribute: Attribute, member: Member) -> str:
    name = member.name if attribute.kind == 'class method' else _variable(member)
    if attribute.kind == 'property':
        return f'```python\n{name}.{attribute.name}\n```'
    words = [_argument(each) for each in list(inspect.signature(attribute.value).parameters.values())[1:]]
    return f'```python\n{name}.{attribute.name}({", ".join(words)})\n```'


def _described(attribute: Attribute, member: Member, site: Site) -> Iterator[str]:
    sections = sections_of(attribute.words)
    yield from texts(sections, member, site)
    described = descriptions(sections)
    parameters = inspect.signature(attribute.value).parameters.values()
    known = [each for each in parameters if each.name in described]
    if known:
        yield '**Requires**\n\n' + table(known, described, member, site)
    yield from _others(sections, member, site)
    yield from returned(sections, member, site)
    for text in examples_of(sections):
        yield _tabs(1, examples.run(text, site.importable))


def _row(attribute: Attribute, base: Member, member: Member, site: Site) -> list[str]:
    first = re.split(r'(?<=[.:])\s', ' '.join(attribute.words.split()), maxsplit=1)[0].rstrip(':')
    return [f'[`{attribute.name}`]({site.link(base.name, member)}#{attribute.name})', cell(first, member, site)]


# ---- Charts and examples ----


def _chart(made: Any) -> Iterator[str]:
    if isinstance(made, Network):
        yield f'```mermaid\n{chart.of_plan(_deeper(made).plan)}\n```'
    elif isinstance(made, Block):
        yield f'```mermaid\n{chart.of_block(made.plan)}\n```'


def _deeper(net: Any) -> Any:
    """The network of an example with enough stages to tell what repeats; examples are kept small."""
    if len(net.config['layers']) > 2:
        return net
    config = {**net.config, 'layers': [2, 2, 2], 'device': 'meta'}
    if 'out_size' in config:
        config['out_size'] = [64] * net.plan.order
    return type(net)(**config)


def _tabs(number: int, run: examples.Run) -> str:
    tabs = f'=== "Codes"\n    ```python linenums="1"\n{textwrap.indent(run.code, "    ")}\n    ```\n\n'
    if run.output:
        tabs += f'=== "Output"\n    ```text\n{textwrap.indent(run.output, "    ")}\n    ```'
    return f'???+ example "Example {number}"\n{textwrap.indent(tabs, "    ")}'
