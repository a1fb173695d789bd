"""The table of a model's calls in the published format, for any ``torch.nn.Module``."""

from mdnc.contribs.torchsummary.report import summary, summary_string

__all__ = ['summary', 'summary_string']
