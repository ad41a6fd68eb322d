"""Sixteen trainings (four seeds, four learning rates) in one compiled call."""

import optax

import fedjax_med as fm

hospitals = fm.datasets.load("breast-cancer")
task = fm.tasks.binary_classification(fm.models.linear(), hospitals.train.examples)


def fed_avg(lr):  # hyperparameters by name are traced: no value compiles anything new
    return fm.algorithms.fed_avg(task.gradient, optax.sgd(lr))


experiments = fm.grid(seed=range(4), lr=[0.003, 0.01, 0.03, 0.1])
run = fm.simulate(
    fed_avg,
    hospitals,
    task=task,
    rounds=50,
    local_work=fm.epochs(1, batch_size=16),
    cohort=fm.cohorts.uniform(3),
    experiments=experiments,
    evaluate_every=50,
)
loss = run.evaluations[-1].pooled["loss"].reshape(4, 4)
for lr, mean, spread in zip([0.003, 0.01, 0.03, 0.1], loss.mean(0), loss.std(0), strict=True):
    print(f"learning rate {lr}: test loss {mean:.4f} (sd over seeds {spread:.4f})")
