"""One trained network on the disk: a folder of JSON and safetensors, or a training checkpoint. Names, never classes.

A folder holds ``config.json`` and parts, safetensors files named by their own checksums. The parts are written first
and ``config.json``, which names them, last and in one step: wherever a save is cut off, the folder still holds the
whole network that it held before.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdnc._archive import DamagedFileError, load_archive
from mdnc._extras import require
from mdnc._files import as_path, whole_file
from mdnc._repr import short_repr
from mdnc._version import __version__

CONFIG = 'config.json'
FORMAT = 1
MOST_SAID = 10**6
MOST_CONFIG = 2**24  # bytes; read, JSON takes up to twenty times as many
HUB = 'hf://'
BEST = Path('checkpoints', 'best.ckpt')  # in the folder of a run of mdnc fit
PARTS = ('golden', 'model')
# What older readers need to know of newer formats stays: 'format' is an int beside the other keys.
KEYS = {'checksum', 'data', 'format', 'network', 'parts', 'saved_by'}
OWNER = 'network.'  # where a training task keeps its network
WRAPPERS = ('_orig_mod.', '_fsdp_wrapped_module.', '_checkpoint_wrapped_module.')


@dataclass(frozen=True)
class Bundle:
    """A network as it lies on the disk.

    Args:
        name: Name of its class.
        arguments: Its constructor's arguments, as plain values.
        weights: Its state dict.
        golden: ``'input'`` of a tiny example and some of the ``'output'`` values; ``None`` in a training checkpoint.
        data: What it was trained on (normalisation, class names, …), JSON-able; ``None`` if unknown.
    """

    name: str
    arguments: dict[str, Any]
    weights: dict[str, Tensor]
    golden: dict[str, Tensor] | None
    data: dict[str, Any] | None = None


def plain(value: object, where: str) -> Any:
    """Return a copy of ``value`` that JSON gives back unchanged, tuples made lists; refuse anything else.

    Args:
        value: ``None``, bool, int, finite float, str, and lists, tuples and dicts (with str keys) of these.
        where: Name of the value for the error.

    Raises:
        TypeError: JSON would drop or change it; the text says which part of it.
    """
    try:
        return _plain(value, where)
    except RecursionError:
        raise TypeError(f'{where} holds itself, or is nested too deeply for JSON.') from None


def _plain(value: object, where: str) -> Any:
    if isinstance(value, dict):
        wrong = next((key for key in value if type(key) is not str or not _is_kept(key)), None)
        if wrong is not None:
            raise TypeError(f'{where} has the key {wrong!r}, but JSON keeps only str keys.')
        return {key: _plain(item, f'{where}[{key!r}]') for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f'{where}[{i}]') for i, item in enumerate(value)]
    if _is_kept(value):
        return value
    raise TypeError(
        f'{where} is of type {type(value).__name__} and cannot be kept in JSON; give None, bool, int of 64 bits, '
        'finite float, str, or lists and dicts of these (an array by its tolist()).'
    )


def _is_kept(value: object) -> bool:
    if type(value) is int:
        return abs(value) < 2**63
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is str:
        return not any('\ud800' <= letter <= '\udfff' for letter in value)  # halves of a letter are no text
    return value is None or type(value) is bool


def write(folder: str | os.PathLike[str], bundle: Bundle) -> None:
    """Put a bundle into a folder, whole or not at all; what it replaces is loadable until then.

    Args:
        folder: The folder; made if it isn't there.
        bundle: The network.

    Raises:
        NotADirectoryError: ``folder`` is a file.
        ValueError: The configuration would be larger than `read` takes.
        OSError: The disk is full or refuses.
    """
    folder = as_path('save_pretrained', 'folder', folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f'{folder} is a file; a network is saved into a folder.')
    raw = {'golden': _serial(bundle.golden or {}), 'model': _serial(bundle.weights)}
    parts: dict[str, dict[str, Any]] = {
        part: {'bytes': len(each), 'sha256': hashlib.sha256(each).hexdigest()} for part, each in raw.items()
    }
    names = {part: _part_name(part, facts['sha256']) for part, facts in parts.items()}
    config = _configuration(bundle, parts)
    if len(config) > MOST_CONFIG:
        raise ValueError(f'{CONFIG} would have {len(config)} bytes, and {MOST_CONFIG} is the most; give less as data.')
    folder.mkdir(parents=True, exist_ok=True)
    before, new = _parts_in_place(folder), set(names.values())
    try:
        for part, name in names.items():
            with whole_file(folder / name) as file:
                file.write(raw[part])
    except BaseException:
        _remove(folder, new - before)
        raise
    with whole_file(folder / CONFIG) as file:
        file.write(config)
    # Of other files only what the replaced config named: another save into this folder may be half way.
    _remove(folder, before - new)


def read(source: str | os.PathLike[str], owner: str = 'load') -> Bundle:
    """Read a folder of `write`, a training checkpoint, a run's best one, or ``hf://owner/name[@revision]``.

    Nothing in it is run.

    Args:
        source: Where it lies.
        owner: Name of the public function.

    Raises:
        TypeError: ``source`` is no str and no path.
        FileNotFoundError: There is nothing, or a part is missing.
        DamagedFileError: It is cut short or changed.
        ValueError: It is of a newer format, or no network's.
    """
    path = _fetched(as_path(owner, 'source', source), os.fspath(source))
    if (path / BEST).is_file() and not (path / CONFIG).exists():
        path /= BEST
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        hint = f' For one on the hub write {HUB}owner/name.' if not path.is_absolute() else ''
        raise FileNotFoundError(f'{path} does not exist: no folder or checkpoint of that name.{hint}')
    return of_training(load_archive(path), path)


def _fetched(path: Path, text: str) -> Path:
    if not text.startswith(HUB):
        return path
    repo, _, revision = text.removeprefix(HUB).partition('@')
    hub = require('huggingface_hub', 'export')
    wanted = [CONFIG, *(f'{part}-*.safetensors' for part in PARTS)]
    return Path(hub.snapshot_download(repo, revision=revision or None, allow_patterns=wanted))


def _read_folder(folder: Path) -> Bundle:
    config = _read_config(folder)
    golden, weights = (_read_part(folder, part, config['parts'][part]) for part in PARTS)
    network = config['network']
    return Bundle(network['name'], network['arguments'], weights, golden, config['data'])


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        found = ', '.join(sorted(each.name for each in folder.glob('*.ckpt'))[:5])
        raise FileNotFoundError(
            f'{folder} holds no {CONFIG} of save_pretrained, or that was cut off, and no {BEST} of mdnc fit'
            + (f'; name one of the checkpoints in it: {found}.' if found else '.')
        )
    if path.stat().st_size > MOST_CONFIG:
        raise DamagedFileError(f'{path} is no configuration of mdnc: it has more than {MOST_CONFIG} bytes.')
    try:
        config: Any = json.loads(path.read_bytes())
        checksum = _checksum(config) if isinstance(config, dict) else ''
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f'{path} is damaged: it is empty, cut short or no JSON ({error}).') from error
    written = config.get('format') if isinstance(config, dict) else None
    if type(written) is not int:
        raise DamagedFileError(f'{path} is damaged, or no configuration of mdnc: it names no format.')
    if written > FORMAT:
        raise ValueError(
            f'{path} has format {short_repr(written)}, and this mdnc reads formats up to {FORMAT}: it was saved by a '
            "newer one; run: pip install --upgrade 'mdnc[export]'"
        )
    if config.keys() != KEYS:
        unknown, missing = sorted(config.keys() - KEYS), sorted(KEYS - config.keys())
        raise ValueError(
            f'{path} is not as format {written} has it: unknown keys {short_repr(unknown)}, missing keys {missing}.'
        )
    if config['checksum'] != checksum:
        raise DamagedFileError(f'{path} is damaged: it is not what was saved (its checksum differs).')
    if not _well_formed(config):
        raise ValueError(f'{path} is not as format {written} has it: a value has the wrong type.')
    return dict(config)


def _well_formed(config: dict[str, Any]) -> bool:
    # Past the checksum only a file made by hand is wrong here; it must be refused as clearly.
    network, parts = config['network'], config['parts']
    return (
        isinstance(network, dict)
        and network.keys() == {'name', 'arguments'}
        and isinstance(network['name'], str)
        and isinstance(network['arguments'], dict)
        and isinstance(config['data'], (dict, type(None)))
        and isinstance(parts, dict)
        and parts.keys() == set(PARTS)
        and all(isinstance(part, dict) and _is_sum(part.get('sha256')) for part in parts.values())
    )


def _is_sum(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set('0123456789abcdef')


def _checksum(config: Mapping[str, Any]) -> str:
    # Over the values, so that another line ending or indent does no harm.
    rest = {key: value for key, value in config.items() if key != 'checksum'}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _part_name(part: str, checksum: str) -> str:
    return f'{part}-{checksum[:16]}.safetensors'


def _parts_in_place(folder: Path) -> set[str]:
    try:
        parts = _read_config(folder)['parts']
    except (OSError, ValueError):
        return set()
    return {_part_name(part, parts[part]['sha256']) for part in PARTS}


def _configuration(bundle: Bundle, parts: dict[str, dict[str, Any]]) -> bytes:
    config: dict[str, Any] = {
        'format': FORMAT,
        'saved_by': {'mdnc': __version__, 'torch': str(torch.__version__)},
        'network': {'name': bundle.name, 'arguments': bundle.arguments},
        'data': bundle.data,
        'parts': parts,
    }
    config['checksum'] = _checksum(config)
    return json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False).encode() + b'\n'


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _serial(tensors: dict[str, Tensor]) -> bytes:
    return bytes(require('safetensors.torch', 'export').save(tensors, metadata={'format': 'pt'}))


def _read_part(folder: Path, part: str, facts: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / _part_name(part, facts['sha256'])
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing, and {CONFIG} names it.')
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != facts['sha256']:
        found = f'{len(raw)} of {short_repr(facts.get("bytes"))} bytes'
        raise DamagedFileError(f'{path} is damaged: it is not what was saved ({found}, its checksum differs).')
    safetensors = require('safetensors', 'export')
    try:
        return dict(require('safetensors.torch', 'export').load(raw))
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise DamagedFileError(f'{path} is no safetensors file: {error}.') from error


def of_training(checkpoint: Any, path: Path, built: bool = False) -> Bundle:
    """The network in a training checkpoint that was read already.

    Args:
        checkpoint: What `load_archive` gave.
        path: Where it lies, for the errors.
        built: Whether the network is there already, so that its arguments need not be known.

    Raises:
        ValueError: It does not say which network it holds, or was given a module whose arguments nobody knows.
    """
    try:
        settings, state = checkpoint['hyper_parameters'], checkpoint['state_dict']
        name, arguments = settings['network']['name'], settings['network']['arguments']
        keys = {unwrapped(key): value for key, value in state.items()}
        weights = {key.removeprefix(OWNER): value for key, value in keys.items() if key.startswith(OWNER)}
        data = settings.get('data')
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ValueError(
            f'{path} does not say which network it holds (hyper_parameters.network.name and .arguments), as the '
            'checkpoints of mdnc fit do; for a bare state dict use mdnc.rebuild.'
        ) from error
    tensors = all(isinstance(value, Tensor) for value in weights.values())
    if not isinstance(name, str) or not tensors or not isinstance(data, (dict, type(None))):
        raise ValueError(f'{path} is no checkpoint of mdnc fit: its network is not named by a str and tensors.')
    if arguments is None and not built:
        raise ValueError(
            f'{path} holds a {name:.80} that was given as a module, so its arguments are not known: build it as you '
            'did, and give it to the task: load_from_checkpoint(…, network=…), or to mdnc.load(…, network=…).'
        )
    arguments = {} if built else arguments
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        raise ValueError(f'{path} is no checkpoint of mdnc fit: its network has no arguments by name.')
    if not _is_small(settings) or not all(isinstance(key, str) and key for key in settings):
        raise ValueError(f'{path} is no checkpoint of mdnc fit: it says more than {MOST_SAID} things, or not by name.')
    if not weights:
        raise ValueError(f'{path} is no checkpoint of mdnc fit: no tensor of it is under {OWNER!r}.')
    return Bundle(name, dict(arguments), weights, None, data)


def _is_small(value: Any) -> bool:
    # A few lists that hold each other many times over are a few bytes, and endless for whoever reads them.
    waiting, seen = [value], 0
    while waiting and seen <= MOST_SAID:
        item = waiting.pop()
        seen += 1
        waiting += item.values() if isinstance(item, Mapping) else item if isinstance(item, (list, tuple, set)) else ()
    return not waiting


def unwrapped(key: str) -> str:
    """A state dict's key without the marks of torch.compile, FSDP and activation checkpointing."""
    for wrapper in WRAPPERS:
        key = key.replace(wrapper, '')
    return key
