"""Training samples changed at random, on the batch and its device, each from its own seed."""

from mdnc.training.augmentation.augmentation import Augmentation
from mdnc.training.augmentation.mixing import mixed_losses

__all__ = ['Augmentation', 'mixed_losses']
