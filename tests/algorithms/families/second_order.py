"""Algorithms that send second derivatives."""

from fedjax_med import algorithms, models, tasks
from tests.algorithms.families.listed import Listed
from tests.engine.toy import make_dataset

ALGORITHMS = {
    "newton": Listed(
        lambda task, ridge: algorithms.newton(task.loss, ridge=ridge),
        {"ridge": 2.0},
        task=lambda: tasks.binary_classification(models.linear(), make_dataset().train.examples),
    ),
}
