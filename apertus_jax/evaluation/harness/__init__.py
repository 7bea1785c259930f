"""lm-evaluation-harness over our models: tasks, rules for task files, macro scores.

lm_eval is imported when tasks are evaluated, not before; `harness.model.HarnessModel` is its model class.
"""

from apertus_jax.evaluation.harness.evaluate_tasks_command import evaluate_tasks
from apertus_jax.evaluation.harness.macros import macro_scores, task_list

__all__ = ["evaluate_tasks", "macro_scores", "task_list"]
