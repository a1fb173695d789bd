"""Pictures of a run that a person understands without reading code."""

from mdnc.training.pictures.agreement import agreement_panel
from mdnc.training.pictures.cases import cases_panel
from mdnc.training.pictures.confusion import confusion_panel
from mdnc.training.pictures.curves import curves_panel, is_share
from mdnc.training.pictures.difference import difference_panel
from mdnc.training.pictures.maps import Example, Style, maps_panel
from mdnc.training.pictures.page import Panel, save_page
from mdnc.training.pictures.reliability import reliability_panel

__all__ = [
    'Example',
    'Panel',
    'Style',
    'agreement_panel',
    'cases_panel',
    'confusion_panel',
    'curves_panel',
    'difference_panel',
    'is_share',
    'maps_panel',
    'reliability_panel',
    'save_page',
]
