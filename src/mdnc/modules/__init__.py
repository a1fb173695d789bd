"""The networks: torch only."""

from mdnc.modules import resnet
from mdnc.modules._plan import Plan
from mdnc.modules.finetuning import decaying_names, freeze, param_groups, unfreeze
from mdnc.modules.growth import adapt_inputs, deepen, lift
from mdnc.modules.ragged import pad_batch
from mdnc.modules.registry import create_model, list_models
from mdnc.modules.resnet.block import Block
from mdnc.modules.resnet.features import FeatureInfo
from mdnc.modules.resnet.network import Network

__all__ = [
    'Block',
    'FeatureInfo',
    'Network',
    'Plan',
    'adapt_inputs',
    'create_model',
    'decaying_names',
    'deepen',
    'freeze',
    'lift',
    'list_models',
    'pad_batch',
    'param_groups',
    'resnet',
    'unfreeze',
]
