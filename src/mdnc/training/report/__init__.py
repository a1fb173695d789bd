"""The report of a run: one page that opens anywhere, without a network."""

from mdnc.training.report.content import Baselines, Report
from mdnc.training.report.page import write_report
from mdnc.training.report.task_report import task_report

__all__ = ['Baselines', 'Report', 'task_report', 'write_report']
