"""The 1-D, 2-D and 3-D faces say the same as their generic class, and presets of a family agree."""

import inspect

import pytest

from mdnc.modules import resnet
from mdnc.modules.resnet.presets import Preset

FAMILIES = sorted({name[:-2] for name in resnet.__all__ if name[0].isupper()})

# What others rely on: a call that was written for mdnc 0.1.6, or since for a preset, goes on meaning the same.
DOCUMENTED = {
    'BlockPlain': 'in_planes out_planes kernel_size=3 stride=1 padding=1 output_size=None '
    "normalizer='pinst' activator='prelu' layer_order='new' scaler='down'",
    'BlockBottleneck': 'in_planes out_planes kernel_size=3 stride=1 padding=1 output_size=None '
    "normalizer='pinst' activator='prelu' layer_order='new' scaler='down'",
    'EncoderNet': "channel layers block='bottleneck' kernel_size=3 in_planes=1 out_length=2",
    'DecoderNet': "channel layers out_size block='bottleneck' kernel_size=3 in_length=2 out_planes=1",
    'AE': "channel layers block='bottleneck' kernel_size=3 in_planes=1 out_planes=1",
    'UNet': "channel layers block='bottleneck' kernel_size=3 in_planes=1 out_planes=1",
    'encnet': 'order=2 kernel_size=3 in_planes=1 out_length=2',
    'decnet': 'out_size order=2 kernel_size=3 in_length=2 out_planes=1',
    'ae': 'order=2 kernel_size=3 in_planes=1 out_planes=1',
    'unet': 'order=2 kernel_size=3 in_planes=1 out_planes=1',
    'resnet': 'order=2 kernel_size=3 in_planes=1 out_length=2',
    'resenc_m': 'order=3 kernel_size=3 in_planes=1 out_planes=1',
    'resenc_l': 'order=3 kernel_size=3 in_planes=1 out_planes=1',
    'resenc_xl': 'order=3 kernel_size=3 in_planes=1 out_planes=1',
    'encnet_signals': 'order=1 kernel_size=9 in_planes=1 out_length=2',
    'encnet_images': 'order=2 kernel_size=3 in_planes=1 out_length=2',
    'encnet_volumes': 'order=3 kernel_size=3 in_planes=1 out_length=2',
}


def positional(function: object) -> str:
    parameters = inspect.signature(function).parameters.values()
    words = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return ' '.join(p.name if p.default is p.empty else f'{p.name}={p.default!r}' for p in words)


def family_of(name: str) -> str:
    return name[:-2] if name[0].isupper() else name.rstrip('0123456789')


@pytest.mark.parametrize('family', DOCUMENTED)
def test_documented_signature(family: str):
    names = [name for name in resnet.__all__ if family_of(name) == family]
    assert names
    for name in names:
        assert positional(getattr(resnet, name)) == DOCUMENTED[family]


@pytest.mark.parametrize('family', FAMILIES)
def test_generic_signature_is_the_face_after_order(family: str):
    (base,) = {getattr(resnet, f'{family}{order}d').__base__ for order in (1, 2, 3)}
    assert base.__name__ == f'_{family}Nd'
    generic = inspect.signature(base)
    words = [p for p in generic.parameters.values() if p.name != 'order']
    for order in (1, 2, 3):
        face = inspect.signature(getattr(resnet, f'{family}{order}d'))
        assert list(face.parameters.values()) == words
    assert next(iter(generic.parameters)) == 'order'


@pytest.mark.parametrize('name', [each for each in resnet.__all__ if isinstance(getattr(resnet, each), Preset)])
def test_presets_get_wider_and_narrower(name: str):
    preset = getattr(resnet, name)
    given = {'out_size': [64] * preset.order} if name.startswith('decnet') else {}
    half, own = (preset(**given, **width, device='meta') for width in ({'channel': preset.channel // 2}, {}))
    assert half.config['channel'] == preset.channel // 2
    wide, narrow = (max(max(each.shape[:2]) for each in net.parameters() if each.ndim > 2) for net in (own, half))
    assert wide == 2 * narrow


@pytest.mark.parametrize(('name', 'words'), [('encnet_signals', {'layers': [1, 1]}), ('unet16', {'block': 'plain'})])
def test_presets_keep_what_makes_them(name: str, words: dict[str, object]):
    with pytest.raises(TypeError, match=f'{name}: {next(iter(words))} is what makes this preset'):
        getattr(resnet, name)(**words)
