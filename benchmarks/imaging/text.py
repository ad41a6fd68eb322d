"""The words of the page of medical images, and the numbers of others that it compares with."""

# ResNet-18 on images of 28 x 28 pixels, MedMNIST v2 (Yang et al. 2023).
PUBLISHED = {
    "breast-mnist": {"auroc": 0.901, "accuracy": 0.863},
    "pneumonia-mnist": {"auroc": 0.944, "accuracy": 0.854},
}

INTRODUCTION = """\
# Medical images

Small images of MedMNIST v2 (Yang et al., [Scientific Data 10, 2023](https://doi.org/10.1038/s41597-022-01721-8))
at simulated hospitals, judged on the official test images.

```python
from fedjax_med import algorithms, datasets, models, tasks
from fedjax_med.engine import epochs, simulate
import optax

data = datasets.load("breast-mnist", partition="dirichlet", alpha=0.5, shift=1.0)
model = models.augmented(models.resnet(), models.affine(shift=0.07, degrees=10.0, flip=True))
task = tasks.binary_classification(model, data.train.examples)
fed_avg = algorithms.fed_avg(task.gradient, optax.adam(3e-3))
algorithm = algorithms.re_estimated(fed_avg, task.loss)  # statistics of each hospital's images
run = simulate(
    algorithm, data, task=task, rounds=20, local_work=epochs(2, batch_size=16), evaluate_every=20
)
```

**Data.** `datasets.medmnist` reads the twelve two-dimensional sets. `partition` and `alpha` divide the
images of each class over hospitals, held-out images in the same shares; `shift` gives each hospital a
scanner (resolution, grey-value curve, noise; `datasets.scanners`). The two files used here were packed
again by others: numbers of images and labels are the official ones, that every pixel is could not be
checked.

**Models.** `models.resnet` has stages of residual blocks, by default of 8, 16 and 32 channels (19,513
parameters), which a CPU trains; `models.resnet18` is the network of the paper. `norm="group"` has no state,
as private gradients of single records ask for. With `norm="batch"`, the default, statistics are of the real
images of a minibatch, padded rows left out, also where devices share one. The server averages the running statistics, unless hospitals keep them
(`algorithms.fed_bn`) or estimate them again on their own images before they are judged
(`algorithms.re_estimated`, which needs no labels, so a hospital that did not train can do it too).

**Augmentation** (`models.augmented`) is part of the compiled round: shifts, turns, mirror images and grey
values are drawn per image and step from its key, the same on every placement, and never in evaluation.

**Where it looks.** `explanation.grad_cam` and `explanation.image_gradients` (integrated gradients) explain
single images; `reporting.image_figures` draws them, as does the report of `fedjax-med study breast-mnist`.

In all tables numbers are means over seeds, each with a division, an initial model and an order of its own;
brackets are 95 % bootstrap intervals over the test images. AUROC of all images compares images of different
hospitals with each other; the mean over hospitals compares images within each, where it has both labels.
Clients train with Adam at 0.003, chosen among 0.003 and 0.01 on validation images of pooled training.
"""

POOLED = """\
Published: ResNet-18 with 11 million parameters. Here: the network of 19,513 parameters with batch
normalisation and augmentation, Adam with a rate that falls along a cosine, 80 epochs of BreastMNIST and 8 of
PneumoniaMNIST, on all images in one place."""

DIVISIONS: dict[str, str] = {
    "breast-mnist": """\
Five hospitals, five seeds; eight rounds of two epochs, group normalisation unless said otherwise, against
pooled training (group normalisation) for 24 epochs.

**What it means.** Where hospitals have the same labels, federation gives what pooling gives: FedAvg is .02 below
pooled training for about as long and with batch normalisation a little above it, and a hospital alone, with a
hundred images, is .1 worse. Where labels differ, every shared model loses, most where hospitals have one label
each. AUROC of all images then rewards whoever knows the hospital's share of each label: hospitals alone learn it
from their own images, and at 0.1 the share by itself beats every shared model. Within hospitals that have both
labels, the shared model with batch normalisation ranks patients better than hospitals alone at 0.5, and no
better at 0.1. Averaged statistics serve best or as well as any in all three divisions; statistics estimated
again on a hospital's own images harm where labels differ, as the mix of labels is normalised away.""",
    "pneumonia-mnist": """\
Five hospitals, five seeds; two rounds of one epoch, group normalisation unless said otherwise, against
pooled training (group normalisation) for five epochs.

**What it means.** Where hospitals have the same labels, FedAvg with batch normalisation reaches after two
rounds what pooled training has after five epochs; methods with group normalisation are .02 to .03 below, and
hospitals alone .04. Where labels differ, shared models lose over all images, at 0.1 more than .1, and hospitals
alone are best, as they know their own share of pneumonia; within the hospitals that have both labels, shared
models rank patients far better (FedAvg with batch normalisation .93 and .95, alone .83 and .78). Statistics
estimated again on a hospital's own images harm where labels differ, as the mix of labels is normalised away.""",
}

SCANNERS = """\
BreastMNIST, IID at five hospitals, each with a scanner of its own (`shift=1.0`), training images augmented,
12 rounds of two epochs, FedAvg; ten seeds, each with other scanners. The last column is the difference in
AUROC of all images from group normalisation, with the 95 % interval of the t distribution over seeds.

**What it means.** Statistics that every hospital estimates again on its own training images, under the
shared weights, serve best: better than the average of running statistics by .032 (.013 half-width over
seeds) and than layers that stay at home by .024 (.012). Group normalisation, which needs no treatment, is last
in trainings as short as these. So `resnet` has batch normalisation by default, with averaged statistics;
hospitals whose scanners differ, and whose labels do not (see above), should wrap their algorithm in
`re_estimated`. All of it is one data set and one kind of simulated shift."""
