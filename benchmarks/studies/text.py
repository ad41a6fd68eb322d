"""The words of the page of all studies, which numbers do not make by themselves."""

INTRODUCTION = """\
# Studies of clinical tables

What `fedjax-med study` finds on the clinical tables that come with the project: federated methods, what
hospitals have without them, and what hospitals gain that took no part. Models are linear, preprocessing
is federated and fitted to training patients only, and learning rates (for Newton's method the ridge)
are chosen on a quarter of them. Means over clients count each client once. In brackets: 95 % intervals.
Those of the means are over random splits, corrected for the patients that splits share (Nadeau and
Bengio 2003); those of clients left out are bootstraps over patients within clients. A difference is
called one only where its interval excludes 0; with so few splits, large differences may go unproven.

*hospital's own rate* knows nothing of a patient but the hospital: the share of each outcome, or the mean
outcome, among its training patients (at clients left out: among all others'). *local only* has a model of
each client's own patients, *best single site* the one of them that serves all clients' training patients
best, *pooled* one of all patients in one place.
"""

MEANINGS: dict[str, str] = {
    "breast-cancer": """\
**What it means.** Federation does not help here, and nothing is lost by it. The five hospitals are
simulated from one hospital's patients and differ in their share of malignant tumours only, and some dozens
of patients are enough for a linear model of these thirty measurements: everything but knowing nothing is
within chance of everything else.""",
    "diabetes-progression": """\
**What it means.** Federation does not help, and nothing is lost by it: the five hospitals are simulated and
differ in how fast their patients' disease progresses, and most have enough patients for ten features. The
hospital's own mean is far worse than any model, so there is something to learn; a hospital that has no
outcomes of its own yet gains it from the others.""",
    "diabetes130": """\
**What it means.** Readmission within 30 days is hard to predict from these features, for pooled patients too
(AUROC about .65). Half of the clients (payers) are small, and their own models differ much between splits,
so means over clients have wide intervals and show no gain. Over all patients together the exact federated
fit is the best, by .01; a third of the patients are of one client, which learns as much alone.
The file does not name its hospitals; with real ones this may look different.""",
    "heart-disease": """\
**What it means.** Ranking patients gains about .03 in AUROC over hospitals alone, at Cleveland and at the
V.A. in Long Beach, which its interval over five splits just fails to prove. Probabilities do not gain: hospitals differ in
how ill their patients are, a single shared model is badly calibrated at each (Switzerland: nearly all are
ill), and hospitals alone or personalised (Ditto) have the better accuracy and Brier score. Share the
ranking, keep the intercept.""",
    "ncctg-lung": """\
**What it means.** Federation is what makes a model possible: 18 institutions of 2 to 36 patients cannot fit a
Cox model alone (C-index over all patients .56), together they reach what pooled patients reach (.66), a
difference that is more than chance. Means over institutions have wide intervals, since most have a handful of test patients.""",
    "parkinsons-telemonitoring": """\
**What it means.** A shared model of the voice is useless for a patient at home: 42 patients differ far more
from each other than any does over half a year, and the errors of shared models are three times those of
each patient's own mean, which models of single patients and personalised ones do not beat either.
Federation does not help here; a patient who is new is off by nine points of the score whatever is done.
Recordings are divided at random in time, which flatters models of a patient's own data.""",
    "tcga-brca": """\
**What it means.** Regions that train alone are not worse on average, but differ more among each other; the
best single region's model is worse elsewhere than a federated one. With some thirty deaths in a test set, no
other difference is shown. Regions that were left out are served about as well as those that took part.""",
    "vaccine-trial": """\
**What it means.** Countries gain: twelve of them find the risk factors together that each has too few
infections for (C-index .69 against .65 alone). The exact federated fit, stratified by country, gives the
vaccine's hazard ratio as {vaccine}, an efficacy of {efficacy}; the generator's true efficacy is 70 %.""",
}
