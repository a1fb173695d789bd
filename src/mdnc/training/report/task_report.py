"""The report of a test, from the task that was tested."""

from mdnc.training.evaluation import Evaluation, Table
from mdnc.training.report.content import Baselines, History, Report
from mdnc.training.tasks import Task


def task_report(
    task: Task,
    checkpoint: str,
    history: History,
    figures: dict[str, float],
    found: tuple[Table, Evaluation] | None,
    baselines: Baselines,
) -> Report:
    """Collect what a report says.

    Args:
        task: The task, just tested.
        checkpoint: Name of the checkpoint.
        history: One row an epoch.
        figures: What the test logged.
        found: The samples and what the test found of them.
        baselines: What other methods reach, by metric and method.
    """
    table, evaluation = found or (None, None)
    return Report(
        title=task.title(),
        network=task.network,
        task=type(task).__name__,
        checkpoint=checkpoint,
        history=history,
        labels=task.labels,
        figures=figures,
        baselines=baselines,
        evaluation=evaluation,
        panels=task.panels(),
        worst=() if table is None else table.worst,
        style=task.style,
    )
