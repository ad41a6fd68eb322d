"""The words of the page; numbers in them come from the results."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.flamby.judging import INPUTS, MAJORITY
from benchmarks.flamby.published import PUBLISHED, RERUN

if TYPE_CHECKING:
    from benchmarks.flamby.table import Results

THEIRS, OURS = INPUTS


class About(NamedTuple):
    """What the page says of a dataset.

    Attributes:
      title: of its section.
      metric: in words.
      centres: short names, in FLamby's order.
      protocol: what is done.
      improvement: what is done differently.
      baselines: method and inputs of the rows of the last table.
    """

    title: str
    metric: str
    centres: tuple[str, ...]
    protocol: str
    improvement: str
    baselines: tuple[tuple[str, str], ...]


_TRAINED = tuple(
    (method, inputs)
    for method in ("best single centre", "each centre its own model", "Pooled")
    for inputs in (THEIRS, OURS)
)

METRICS = {
    "heart-disease": About(
        "Fed-Heart-Disease",
        "accuracy at 0.5",
        ("Cleveland", "Hungary", "Switzerland", "Long Beach"),
        "Four centres with 199/104, 172/89, 30/16 and 85/45 training and test patients, 13 inputs, "
        "logistic regression. Fifteen rounds of 100 minibatches of 4 at every centre (Cyclic: at one), "
        "plain SGD at the centres; pooled and alone 50 epochs of Adam. Inputs are standardised with "
        "each centre's own mean and standard deviation; the pooled model is trained with those of all "
        "centres, and judged on test patients standardised with their centre's.",
        "Standardised with the mean and standard deviation of all centres' training patients, which "
        "follow exactly from one sum and one sum of squares per centre (`data.standardize.fit`). "
        "Budget and hyperparameters as above.",
        ((MAJORITY, ""), *_TRAINED),
    ),
    "tcga-brca": About(
        "Fed-TCGA-BRCA",
        "C-index",
        ("Northeast", "South", "West", "Midwest", "Europe", "Canada"),
        "Six regions with 248/63, 156/40, 164/42, 129/33, 129/33 and 40/11 patients, 39 inputs, linear "
        "Cox model with the partial likelihood of each minibatch. Five rounds of 100 minibatches of 8; "
        "pooled and alone 30 epochs of Adam. Age is in years beside 38 indicators. In the test sets "
        "14, 4, 8, 3, 2 and 1 patients died.",
        "Age standardised with the mean and standard deviation of all centres; nothing else differs.",
        (("age alone", ""), *_TRAINED),
    ),
}

INTRODUCTION = """\
The seven strategies of FLamby (Ogier du Terrail et al., NeurIPS 2022, <https://arxiv.org/abs/2210.04620>)
on its two tabular datasets, with its preprocessing, splits, budgets, hyperparameters, initialisation and
loss, and then with inputs that are on one scale for all centres. Means over centres count each once. In
brackets after a mean: standard deviation over seeds, of the mean over centres. *published*: five seeds, from
the results in FLamby's repository, with its numbers for each centre in square brackets. *NumPy*: an
independent program for the same protocol, 20 seeds (TCGA-BRCA 10). After ±: 95 % over seeds. Intervals over
patients are BCa bootstraps, patients drawn within centres, with the same seeds of training.

FedAvg, FedProx, FedAdagrad, FedAdam and FedYogi are one compiled program, all seeds and both kinds of inputs
at once: the rule of the server is a hyperparameter (`benchmarks/flamby/strategies.py`, equal to the
library's `fed_adaptive` with b1 0.9, b2 0.999, tau 1e-8). SCAFFOLD is the library's with clients weighted by
examples, which is FLamby's where the server's learning rate is 1, as here. Cyclic hands the model on
(`cyclic_weight_transfer`), in a new order every cycle. The loss of survival is `tasks.cox` with
`ties="order"`; it sums in log space, where FLamby's can overflow. *Newton* is `newton` with a ridge of 1, five
rounds of one pass over the patients: logistic regression, and Cox regression stratified by centre. Nothing
is tuned on test patients here; FLamby's hyperparameters have no validation set to come from."""


def findings(results: Results) -> str:
    """What was found on the way."""

    def mean(dataset: str, method: str, inputs: str = THEIRS, seeds: int | None = None) -> float:
        return results.get(dataset, method, inputs, seeds)["mean"]

    heart, tcga, many = "heart-disease", "tcga-brca", results.many
    majority = results.get(heart, MAJORITY, "")
    yogi, fed_avg = (results.get(heart, m, OURS) for m in ("FedYogi", "FedAvg"))
    adam = results.get(tcga, "FedAdam", OURS)
    turns = {d: results.get(d, "Cyclic, not handed on", THEIRS, many) for d in (heart, tcga)}
    spread = results.get(tcga, "FedAvg", THEIRS, many)
    far = max(abs(mean(heart, m, THEIRS, many) - RERUN[heart][m]) for m in PUBLISHED[heart])
    undefined = adam["over_patients"]["undefined"]

    def centres(values) -> str:
        return ", ".join(f"{v:.3f}" for v in values)

    text = f"""\
- **The protocol is reproduced.** With {many} seeds, every row of heart disease is within {far:.3f} of the
  NumPy program. On TCGA-BRCA, FedAvg and FedProx on age in years have a standard deviation of
  {spread["sd_over_seeds"]:.2f} over seeds (published: {PUBLISHED[tcga]["FedAvg"].sd}), so the mean of ten seeds
  is uncertain by {2 * spread["sd_over_seeds"] / 10**0.5:.2f}: {mean(tcga, "FedAvg"):.3f} with {results.few} seeds,
  {spread["mean"]:.3f} with {many}, {PUBLISHED[tcga]["FedAvg"].mean} published, {RERUN[tcga]["FedAvg"]} by NumPy are
  one result.
- **A rule without a model beats FedAvg on FLamby's inputs**: the majority of each centre's own training
  patients is right in {majority["mean"]:.3f}, FedAvg in {mean(heart, "FedAvg", THEIRS, many):.3f}.
- **Standardising within centres deletes what distinguishes them.** All 30 Swiss training patients are ill; after
  their own mean is subtracted they look like everybody. With one scale for all, the same FedAvg gains
  {fed_avg["gain"]["value"]:.3f} and FedYogi {yogi["gain"]["value"]:.3f}, to {yogi["mean"]:.3f}; training pooled gains
  as well ({mean(heart, "Pooled", THEIRS):.3f} to {mean(heart, "Pooled", OURS):.3f}), since FLamby judges its
  pooled model on inputs it was not trained on.
- **Age in years slows Cox regression down.** At a mean of 58 years, a step moves the weight of age some sixty times as far as that of an indicator.
  Standardised, FedAvg goes from {mean(tcga, "FedAvg", THEIRS, many):.3f} to {mean(tcga, "FedAvg", OURS, many):.3f}
  ({many} seeds) and its standard deviation over seeds from {spread["sd_over_seeds"]:.3f} to
  {results.get(tcga, "FedAvg", OURS, many)["sd_over_seeds"]:.3f}; FedAdam reaches {adam["mean"]:.3f}, for all patients
  together {adam["pooled"]["value"]:.3f}. "Pooled" stays low because it has Adam with a rate of 0.1 on minibatches of
  8: an optimizer's artefact, no upper bound. SCAFFOLD and Cyclic, which have a tenth of FedAvg's rate or a
  sixth of its steps, hardly gain: five rounds are too few for them.
- **Newton's method needs no learning rate, no seed and one pass a round.** In five rounds it has
  {mean(heart, "Newton", OURS):.3f} on heart disease and {mean(tcga, "Newton", OURS):.3f} on TCGA-BRCA
  ({results.get(tcga, "Newton", OURS)["pooled"]["value"]:.3f} for all patients together), for messages of 14 x 14
  and 40 x 40 sums.
- **FLamby's Cyclic does not hand its model on.** In its repository (`flamby/strategies/cyclic.py`, commit
  0bfbf85) every centre trains a copy of its own, and the benchmark judges that of the first. Done so here, with
  {many} seeds, Cleveland's model has {centres(turns[heart]["centres"])} on the four centres; published as Cyclic
  are {centres(PUBLISHED[heart]["Cyclic"].centres)}. The model that is handed on has
  {centres(results.get(heart, "Cyclic", THEIRS, many)["centres"])}: another method. On TCGA-BRCA seeds differ more;
  there too the model that stays ({centres(turns[tcga]["centres"])}) is nearer to the published row
  ({centres(PUBLISHED[tcga]["Cyclic"].centres)}) than the one that travels
  ({centres(results.get(tcga, "Cyclic", THEIRS, many)["centres"])}).
- **Test sets are small.** The interval over patients of one method is about 0.1 wide on heart disease, and
  nearly 0.2 on TCGA-BRCA, where the Canadian C-index rests on a single death: in {100 * undefined:.0f} % of the
  resamples some centre has no death and thus no C-index, and the interval is that of the others. The C-index
  of all patients together has no such gap. What the same patients say of two methods (the gains) is
  known better than either; differences between strategies on equal inputs are mostly noise."""
    # Numbers have other widths than the words that they replace.
    points = [point.split() for point in text.split("\n- ")]
    return "\n".join(
        textwrap.fill(
            " ".join(words),
            108,
            initial_indent="" if number == 0 else "- ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for number, words in enumerate(points)
    )
