"""The networks by name: classes and presets."""

from fnmatch import fnmatchcase
from typing import Any

from mdnc.modules import _checks, resnet
from mdnc.modules.resnet.network import Network
from mdnc.modules.resnet.presets import Preset


def list_models(pattern: str = '*') -> list[str]:
    """Names of the networks that `create_model` makes: classes and presets.

    Args:
        pattern: Which, with ``*`` for any letters and ``?`` for one; large and small letters count alike.

    Raises:
        TypeError: ``pattern`` is no string.

    Example:
        >>> import mdnc
        >>> mdnc.list_models('unet?d'), mdnc.list_models('resnet*')
        (['UNet1d', 'UNet2d', 'UNet3d'], ['resnet18', 'resnet34', 'resnet50'])
    """
    if not isinstance(pattern, str):
        raise TypeError(f"list_models: pattern={pattern!r} must be a string such as '*unet*'.")
    return [name for name in _MODELS if fnmatchcase(name.lower(), pattern.lower())]


def create_model(name: str, **arguments: Any) -> Network:
    """Make a network by name.

    Args:
        name: A class or preset, see `list_models`.
        **arguments: Its arguments and options.

    Raises:
        TypeError: ``name`` is no string, or an argument is unknown or has the wrong type.
        ValueError: There is no network of this name, or an argument has the wrong value.

    Example:
        >>> import mdnc
        >>> type(mdnc.create_model('encnet32', order=3, normalizer='batch')).__name__
        'EncoderNet3d'
    """
    if not isinstance(name, str):
        raise TypeError(f'create_model: name={name!r} must be a string.')
    if name not in _MODELS:
        raise ValueError(f'create_model: unknown network {name!r}.{_checks.near(name, _MODELS)} See list_models().')
    network: Network = _MODELS[name](**arguments)
    return network


def _is_model(value: Any) -> bool:
    return isinstance(value, Preset) or (isinstance(value, type) and issubclass(value, Network))


_MODELS: dict[str, Any] = {name: value for name in resnet.__all__ if _is_model(value := getattr(resnet, name))}
