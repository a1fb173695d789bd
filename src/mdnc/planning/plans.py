"""A plan: a recipe with its reasons, forecasts and what was pointed out; as YAML, JSON and a page."""

import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from mdnc._files import whole_file
from mdnc.planning.choices import GIVEN, Choice
from mdnc.planning.examples import Example
from mdnc.planning.fingerprint import Fingerprint
from mdnc.planning.recipe import nested

_WIDTH = 110


@dataclass(frozen=True)
class Plan:
    """What `plan` gives.

    Args:
        choices: Each word of the recipe with its reason, in order.
        fingerprint: What is known of the data.
        budget: What the run may take.
        forecast: What it will take.
        notes: What a person should look at.
        measured: What was timed or checked on the device; empty without.
        examples: Pictures of a few samples.

    Example:
        >>> import numpy as np
        >>> from mdnc.planning import plan
        >>> from mdnc.training import ArrayData
        >>> signals = ArrayData(np.random.default_rng(0).normal(size=(40, 1, 64)).astype('f4'), np.arange(40) % 2)
        >>> planned = plan(signals, 2**30)
        >>> planned.words['model.class_path'], planned.forecast['bytes'] < planned.budget_bytes
        ('Classification', True)
    """

    choices: tuple[Choice, ...]
    fingerprint: Fingerprint
    budget: dict[str, Any]
    forecast: dict[str, Any]
    notes: tuple[str, ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()

    @property
    def words(self) -> dict[str, Any]:
        """The value of each word."""
        return {choice.word: choice.value for choice in self.choices}

    @property
    def budget_bytes(self) -> int:
        """Bytes that it was planned for."""
        return int(self.budget['memory'] - self.budget['reserve'])

    @property
    def recipe(self) -> dict[str, Any]:
        """What ``mdnc fit --config`` reads, as nested dictionaries."""
        return nested(self.words)

    def explained(self, word: str, because: str) -> 'Plan':
        """The same plan with another reason of a word."""
        made = (replace(each, because=because) if each.word == word else each for each in self.choices)
        return replace(self, choices=tuple(made))

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        return {
            'recipe': self.recipe,
            'choices': [asdict(choice) for choice in self.choices],
            'notes': list(self.notes),
            'forecast': self.forecast,
            'budget': self.budget,
            'measured': self.measured,
            'fingerprint': self.fingerprint.to_dict(),
        }

    def to_yaml(self) -> str:
        """The recipe with the reason of each choice as a comment."""
        head = ['Planned by mdnc plan. Each comment says what bound the choice below it, and what stood next.']
        head += [f'Look: {note}' for note in self.notes]
        lines = [line for text in head for line in _comment(text, 0)]
        reasons = {_place(choice.word): choice for choice in self.choices}
        return '\n'.join([*lines, *_lines(self.recipe, (), reasons)]) + '\n'

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write ``plan.yaml``, and ``plan.json`` and ``data.json`` (the fingerprint) beside it.

        Args:
            path: The YAML file; its folder must exist.

        Returns:
            The files.
        """
        path = Path(path)
        texts = {
            path: self.to_yaml(),
            path.with_suffix('.json'): json.dumps(self.to_dict(), indent=1) + '\n',
            path.with_name('data.json'): json.dumps(self.fingerprint.to_dict(), indent=1) + '\n',
        }
        for name, text in texts.items():
            with whole_file(name) as file:
                file.write(text.encode())
        return [*texts]

    def __str__(self) -> str:
        """The choices as lines, with what bound them."""
        rows = [f'{choice.word}: {value_text(choice.value)}  ({choice.because})' for choice in self.choices]
        return '\n'.join([*rows, *(f'look: {note}' for note in self.notes)])


def _place(word: str) -> tuple[str, ...]:
    recipe: Any = nested({word: None})
    place = []
    while isinstance(recipe, dict):
        ((name, recipe),) = recipe.items()
        place.append(name)
    return tuple(place)


def value_text(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix('\n').removesuffix('\n...')


def _comment(text: str, depth: int) -> list[str]:
    room = _WIDTH - 2 * depth
    return [f'{"  " * depth}# {line}' for line in textwrap.wrap(text, room, break_on_hyphens=False)]


def _lines(part: Mapping[str, Any], place: tuple[str, ...], reasons: Mapping[tuple[str, ...], Choice]) -> Iterator[str]:
    depth = len(place)
    for name, value in part.items():
        here, indent = (*place, name), '  ' * depth
        choice = reasons.get(here)
        if choice is None and isinstance(value, dict) and value:
            yield f'{indent}{name}:'
            yield from _lines(value, here, reasons)
            continue
        if choice is not None and choice.because not in ('', GIVEN):
            yield from _comment(choice.because, depth)
        if choice is not None and choice.instead:
            yield from _comment(f'next: {choice.instead}', depth)
        yield f'{indent}{value_text(name)}: {value_text(value)}'
