"""What is done to signals, images and volumes when a recipe names only their kind."""

from typing import Any, NamedTuple


class Preset(NamedTuple):
    """Strengths by word, and with what probability each is used."""

    strengths: dict[str, Any]
    chance: dict[str, float]
    channel_chance: dict[str, float] = {}  # noqa: RUF012 read only


# Warps of wearables' signals: Um et al., Data augmentation of wearable sensor data for Parkinson's disease monitoring
# using convolutional neural networks, 2017.
_SIGNAL = Preset(
    {
        'shift': 0.1,
        'scaling': [0.8, 1.25],
        'time_warp': 0.2,
        'noise': [0.0, 0.1],
        'brightness': [0.8, 1.25],
        'magnitude_warp': 0.2,
        'mask': 0.2,
    },
    dict.fromkeys(('shift', 'scaling', 'time_warp', 'noise', 'brightness', 'magnitude_warp', 'mask'), 0.3),
)
_IMAGE = Preset(
    {
        'flip': [1],
        'rotation': 15.0,
        'scaling': [0.8, 1.25],
        'shift': 0.1,
        'noise': [0.0, 0.1],
        'blur': [0.5, 1.0],
        'brightness': [0.75, 1.25],
        'contrast': [0.75, 1.25],
        'mask': 0.3,
    },
    {'rotation': 0.5, 'scaling': 0.5, 'shift': 0.5, 'noise': 0.1, 'blur': 0.1, 'brightness': 0.3, 'contrast': 0.3}
    | {'mask': 0.3},
)
# nnU-Net's list and chances (Isensee et al., 2021; nnUNetTrainer.get_training_transforms of nnunetv2 2.8.1). What it
# calls the variance of the noise is the standard deviation in batchgeneratorsv2 0.3.6, and its scaling, from 0.7 to
# 1.4, multiplies distances: objects become smaller by it.
_VOLUME = Preset(
    {
        'flip': [0, 1, 2],
        'rotation': 30.0,
        'scaling': [1 / 1.4, 1 / 0.7],
        'noise': [0.0, 0.1],
        'blur': [0.5, 1.0],
        'brightness': [0.75, 1.25],
        'contrast': [0.75, 1.25],
        'low_resolution': [0.5, 1.0],
        'gamma_inverted': [0.7, 1.5],
        'gamma': [0.7, 1.5],
    },
    {
        'rotation': 0.2,
        'scaling': 0.2,
        'noise': 0.1,
        'blur': 0.2,
        'brightness': 0.15,
        'contrast': 0.15,
        'low_resolution': 0.25,
        'gamma_inverted': 0.1,
        'gamma': 0.3,
    },
    {'blur': 0.5, 'low_resolution': 0.5},
)

PRESETS = {'signal': _SIGNAL, 'image': _IMAGE, 'volume': _VOLUME}
