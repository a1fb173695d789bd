"""Charts of networks and blocks in Mermaid's words, read off their plans."""

from collections.abc import Iterator

from mdnc.modules._plan import Act, Block, Conv, Linear, Norm, Part, Plan, Single, Stage, Unit

_ACTS = {'prelu': 'PReLU', 'relu': 'ReLU', 'leaky_relu': 'leaky ReLU', 'elu': 'ELU', 'gelu': 'GELU', 'silu': 'SiLU'}
_NORMS = {
    'pinst': 'instance norm',
    'inst': 'instance norm',
    'batch': 'batch norm',
    'group': 'group norm',
    'layer': 'layer norm',
}


def of_plan(plan: Plan) -> str:
    """A network: stages top down, what changes their size on the arrows, skips dotted."""
    parts = [part for part in plan.parts if part.name not in plan.results(True)[:-1]]
    keys = {part.name: f'n{index}' for index, part in enumerate(parts)}
    planes = plan.planes
    lines = ['flowchart TB', '    input(["input"])']
    lines += [f'    {keys[part.name]}["{_label(part, planes[part.name], index)}"]' for index, part in _counted(parts)]
    lines += ['    output(["output"])']
    ends = ['input', *(keys[part.name] for part in parts), 'output']
    arrows = ['', *(_arrow(part) for part in parts)]
    lines += [f'    {one} -->{text} {two}' for one, two, text in zip(ends[:-1], ends[1:], arrows, strict=True)]
    for part in parts:
        giver = part.skip.partition(':')[0] if isinstance(part, Stage) else ''
        if giver:
            lines += [f'    {keys[giver]} -.->|skip| {keys[part.name]}']
    return '\n'.join(lines)


def _counted(parts: list[Part]) -> Iterator[tuple[int, Part]]:
    index = 0
    for part in parts:
        index += isinstance(part, Stage)
        yield index, part


def _label(part: Part, planes: int, index: int) -> str:
    if isinstance(part, Stage):
        count = len(part.blocks)
        blocks = f'{count} residual block{"s" * (count > 1)}'
        return f'Stage {index}<br>{blocks}, {planes} channels'
    assert isinstance(part, Single)
    return ' → '.join(_layer(layer) for layer in part.layers)


def _layer(layer: object) -> str:
    if isinstance(layer, Conv):
        kernel = ' × '.join(map(str, layer.kernel))
        return f'{"transposed " * layer.transposed}convolution {kernel}, {layer.out_planes} channels'
    if isinstance(layer, Norm):
        return _NORMS[layer.kind]
    if isinstance(layer, Act):
        return _ACTS[layer.kind]
    if isinstance(layer, Linear):
        return f'linear layer, {layer.out_planes} values'
    kind = getattr(layer, 'kind', '') or getattr(layer, 'mode', '')
    words = {'GlobalPool': 'mean of each channel' if kind == 'avg' else f'{kind} pool', 'Upsample': 'up-sampling'}
    return words.get(type(layer).__name__, type(layer).__name__.lower())


def _arrow(part: Part) -> str:
    stride = part.resize.stride if isinstance(part, Stage) and part.resize else ()
    if not stride or max(stride) == 1:
        return ''
    factor = str(stride[0]) if len(set(stride)) == 1 else ', '.join(map(str, stride))
    return f'|{"÷" if part.resize.way == "down" else "×"} {factor}|'  # type: ignore[attr-defined]


def of_block(block: Block) -> str:
    """A residual block: its branch, its shortcut, and their sum."""
    lines = ['flowchart TB', '    input(["input"])', '    sum(("+"))', '    output(["output"])']
    last = 'input'
    for index, unit in enumerate(block.units):
        lines += [f'    u{index}["{_unit(unit)}"]', f'    {last} --> u{index}']
        last = f'u{index}'
    lines += [f'    {last} --> sum']
    if block.shortcut is None:
        lines += ['    input -->|as it is| sum']
    else:
        lines += [f'    shortcut["{_unit(block.shortcut)}"]', '    input --> shortcut --> sum']
    return '\n'.join([*lines, '    sum --> output'])


def _unit(unit: Unit) -> str:
    stride = unit.resize.stride
    words = ' → '.join(_layer(layer) for layer in unit.layers)
    return words + (f', stride {stride[0]}' if unit.resize.way == 'down' and max(stride) > 1 else '')
