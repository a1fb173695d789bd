"""What torch's own kernels allocate inside depends on the processor, and with it how close a forecast has to come.

The rules of `mdnc.analysis.workspaces` were measured where oneDNN computes with AVX-512. With AVX2 alone it takes other
kernels (``ONEDNN_MAX_CPU_ISA=AVX2`` does so anywhere), and tiles of matrices (AMX) serve half types: there the networks
of the tests, whose maps are small beside workspaces, are off by up to a fifth.
"""

from mdnc.ops import processor

MEASURED = processor.onednn_has('avx512f') and not processor.onednn_has('amx_bf16')
UNDER, OVER = (0.98, 1.05) if MEASURED else (0.75, 1.25)
