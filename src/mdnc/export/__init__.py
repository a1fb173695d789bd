"""Networks for other programs: ONNX, torch.export, AOTInductor; each file is compared with the network beforehand."""

from mdnc.export.comparison import Compared, DiffersError, check
from mdnc.export.writer import Exported, to_aotinductor, to_onnx, to_torch_export

__all__ = ['Compared', 'DiffersError', 'Exported', 'check', 'to_aotinductor', 'to_onnx', 'to_torch_export']
