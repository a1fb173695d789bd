"""From data and a budget to a recipe that fits, with the reason of each choice."""

from mdnc.planning.budget import Budget
from mdnc.planning.budget_search import BudgetError
from mdnc.planning.fingerprint import Fingerprint, Target
from mdnc.planning.plans import Plan
from mdnc.planning.reading import read_fingerprint
from mdnc.planning.request import plan

__all__ = ['Budget', 'BudgetError', 'Fingerprint', 'Plan', 'Target', 'plan', 'read_fingerprint']
