"""What is to be planned for: data in any form → fingerprint and the words that are given."""

import copy
import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from mdnc import training
from mdnc.planning.budget import Budget
from mdnc.planning.examples import make_examples
from mdnc.planning.fingerprint import Fingerprint
from mdnc.planning.folder_layout import seen_targets
from mdnc.planning.kinds import MixedKindsError
from mdnc.planning.planner import planned
from mdnc.planning.plans import Plan
from mdnc.planning.reading import read_fingerprint
from mdnc.planning.recipe import data_words, flat
from mdnc.planning.timing import in_time
from mdnc.planning.trial_run import checked
from mdnc.training import ArrayData, SampleData
from mdnc.training.data.folder import IMAGES, Folder
from mdnc.training.data.reader import Joined
from mdnc.training.data.sources import Pair
from mdnc.training.data.splitting import divide

_PLANES = ('in_planes', 'out_planes', 'out_length')
_CONFIGS = ('config.yaml', 'plan.yaml')


def plan(
    data: Any,
    budget: Budget | int | None = None,
    words: Mapping[str, Any] | None = None,
    *,
    like: str | os.PathLike[str] | None = None,
    dry: bool = True,
    check: bool = False,
) -> Plan:
    """Plan a run: a recipe that fits a budget, with the reason of each choice.

    Args:
        data: A data module; the data section of a recipe, ``{'class_path': …, 'init_args': {…}}``; what `ArrayData`
            takes as ``inputs``; or a `Fingerprint`.
        budget: What the run may take, or its bytes; None for what is free on the device.
        words: Words of the recipe that stay as they are, ``{'data.batch_size': 8}`` or nested as in a recipe; all else
            is planned around them.
        like: A run, or a recipe, whose network is taken, so that its weights fit.
        dry: Whether nothing is timed; hours of the budget are then left out of account.
        check: Whether a real step is run, whose memory is compared with the forecast; where it is over the budget, the
            next smaller plan is taken.

    Returns:
        The plan; ``plan.save('plan.yaml')`` writes the recipe.

    Raises:
        BudgetError: Nothing fits; the text says the least that works.
        DataError: The data cannot be read or trained on.
        ValueError: A word has a value that is not legal.

    Example:
        >>> import numpy as np
        >>> from mdnc.training import ArrayData
        >>> signals = ArrayData(np.random.default_rng(0).normal(size=(40, 1, 64)).astype('f4'), np.arange(40) % 2)
        >>> plan(signals, 2**30).recipe['model']['class_path']
        'Classification'
    """
    budget = budget if isinstance(budget, Budget) else Budget(memory=budget)
    given = flat(words or {})
    if like is not None:
        given = {**network_words(like), **given}
    if isinstance(data, Fingerprint):
        return _planned(data, budget, given, dry, check)
    given = _located(data, given)
    seen = _seen(given)
    if seen is not None:
        given['data.targets'] = seen[0]
    module, given = _opened(data, given)
    pairs = module.pairs()
    if module.order is None and len(pairs['train'].inputs.shape(0)) == 1 and not isinstance(data, SampleData):
        given['data.order'] = module.order = 1  # a row of a table: one channel of as many values
    try:
        fingerprint, converted = _read(module, pairs), ''
    except MixedKindsError as error:
        module, converted = (
            _converted(module, pairs, error),
            f'there are images {error.counts}: all become {error.colours}',
        )
        given['data.colours'], pairs = error.colours, module.pairs()
        fingerprint = _read(module, pairs)
    if module.split.given is not None:
        trained = len(divide(pairs, module.split, module.classes)['train'][1])
        fingerprint = replace(fingerprint, training=trained)
    made = _planned(fingerprint, budget, given, dry, check)
    if seen is not None:
        made = made.explained('data.targets', seen[1])
    if converted:
        made = replace(made.explained('data.colours', converted), notes=(f'colours: {converted}', *made.notes))
    return replace(made, examples=make_examples(pairs['train'], fingerprint.order))


def _read(module: SampleData, pairs: Mapping[str, Pair]) -> Fingerprint:
    return read_fingerprint(pairs, module.order, module.classes, getattr(module, 'values', None))


def _converted(module: SampleData, pairs: Mapping[str, Pair], error: MixedKindsError) -> SampleData:
    """The data with images in grey and in colour as one kind.

    Raises:
        MixedKindsError: They are other samples.
    """
    if error.colours is None or not isinstance(module, ArrayData) or not all(map(_holds_images, pairs.values())):
        raise error
    made = copy.copy(module)
    made._look = replace(module._look, colours=error.colours)
    return made


def _holds_images(pair: Pair) -> bool:
    parts = pair.inputs.readers if isinstance(pair.inputs, Joined) else [pair.inputs]
    return all(isinstance(part, Folder) and all(file.suffix in IMAGES for file in part.files) for part in parts)


def _planned(fingerprint: Fingerprint, budget: Budget, given: dict[str, Any], dry: bool, check: bool) -> Plan:
    made = planned(fingerprint, budget, given)
    made = made if dry else in_time(made, fingerprint, budget, given)
    return checked(made, fingerprint, budget, given) if check else made


def _located(data: Any, given: dict[str, Any]) -> dict[str, Any]:
    if isinstance(data, SampleData) or data is None:
        return given
    if isinstance(data, Mapping) and 'class_path' in data:
        return {**flat({'data': data}), **given}
    return {'data.class_path': 'ArrayData', 'data.inputs': data, **given}


def _seen(given: Mapping[str, Any]) -> tuple[str, str] | None:
    """Targets that folders show, where none are named."""
    ours = given.get('data.class_path', 'ArrayData') == 'ArrayData'
    if not ours or given.get('data.targets') is not None or given.get('model.class_path') == 'Reconstruction':
        return None
    return seen_targets(given.get('data.inputs'))


def _opened(data: Any, given: dict[str, Any]) -> tuple[SampleData, dict[str, Any]]:
    if isinstance(data, SampleData):
        return data, {**data_words(data), **given}
    module = make_data(given)
    return module, {**given, **data_words(module), **_said(given)}


def _said(given: Mapping[str, Any]) -> dict[str, Any]:
    # Arrays in memory are not what a recipe can hold; all else stays as it was said.
    return {word: value for word, value in given.items() if word not in ('data.inputs', 'data.targets', 'data.predict')}


def make_data(words: Mapping[str, Any]) -> SampleData:
    """The data module of a recipe's words.

    Raises:
        ValueError: There is no such class, or it is none of samples.
    """
    name = str(words.get('data.class_path', 'ArrayData'))
    module, _, attribute = name.rpartition('.')
    try:
        kind = getattr(importlib.import_module(module) if module else training, attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f'plan: there are no data called {name!r}: {error}') from error
    if not isinstance(kind, type) or not issubclass(kind, SampleData):
        raise ValueError(f'plan: {name} is no SampleData, and cannot be planned for')
    arguments: dict[str, Any] = {}
    for word, value in words.items():
        first, *names = word.split('.')
        if first != 'data' or names == ['class_path']:
            continue
        place = arguments
        for part in names[:-1]:
            place = place.setdefault(part, {})
        place[names[-1]] = value
    return kind(**arguments)


def network_words(like: str | os.PathLike[str]) -> dict[str, Any]:
    """The words of another run's network, but for its planes.

    Raises:
        FileNotFoundError: There is no such run or recipe.
        ValueError: It holds no network.
    """
    path = Path(like)
    found = next((path / name for name in _CONFIGS if (path / name).is_file()), path) if path.is_dir() else path
    if not found.is_file():
        raise FileNotFoundError(f'like: {like} is neither a run ({_CONFIGS[0]} is missing) nor a recipe')
    text = found.read_text()
    recipe = json.loads(text) if found.suffix == '.json' else yaml.safe_load(text)
    words = flat((recipe or {}).get('recipe', recipe) or {}) if isinstance(recipe, dict) else {}
    kept = {word: value for word, value in words.items() if word.startswith('model.network.')}
    if 'model.network.name' not in kept:
        raise ValueError(f'like: {found} names no network (model.network.name)')
    return {word: value for word, value in kept.items() if word.rpartition('.')[2] not in _PLANES}
