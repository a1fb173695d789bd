"""The networks: torch only."""

from mdnc.modules import resnet
from mdnc.modules._plan import Plan
from mdnc.modules.resnet.block import Block
from mdnc.modules.resnet.features import FeatureInfo
from mdnc.modules.resnet.network import Network

__all__ = ['Block', 'FeatureInfo', 'Network', 'Plan', 'resnet']
