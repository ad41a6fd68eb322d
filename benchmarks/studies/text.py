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

MEANINGS: dict[str, str] = {}
