"""Five hospitals learn to tell malignant from benign tumours without sharing a patient."""

import optax

import fedjax_med as fm

hospitals = fm.datasets.load("breast-cancer")  # 569 real patients in five simulated hospitals
model = fm.models.linear()  # or any Flax module: fm.models.from_linen(...), from_nnx(...)
task = fm.tasks.binary_classification(model, hospitals.train.examples)
algorithm = fm.algorithms.fed_prox(task.gradient, optax.sgd(0.05), mu=0.01)

run = fm.simulate(
    algorithm,
    hospitals,
    task=task,
    rounds=100,
    local_work=fm.epochs(1, batch_size=16),
    evaluate_every=20,
)

final = run.evaluations[-1]
print(f"pooled accuracy {final.pooled['accuracy']:.3f}")
for hospital, accuracy in zip(hospitals.client_names, final.per_client["accuracy"], strict=True):
    print(f"{hospital}: {accuracy:.3f}")
