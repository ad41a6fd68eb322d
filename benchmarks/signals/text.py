"""The words of the page of signals, which numbers do not make by themselves."""

INTRODUCTION = """\
# Signals and streams of single patients

Heart beats, rhythms and voices, with **patients as clients**: what federated and personalised models give a
patient, beside a model of the patient's own data alone, a pooled one, and none at all.

- `mitbih-beats`: waveforms of 17,800 beats of nine patients of the MIT-BIH Arrhythmia Database, in the AAMI's
  classes N (normal), S (supraventricular), V (ventricular) and F (fusion); model: a residual network in one
  dimension (`models.signals.residual_network`). The paced record 104 is left out, as the AAMI recommends.
- `mitbih-rr`: the class N, S or V of a beat from 16 intervals before and one after it, nothing else; 47
  patients of 48 records; models: a GRU and a temporal convolution.
- `parkinsons-telemonitoring`: the UPDRS score of 42 patients from their voices at home; model: a network with 16
  hidden units.

Learning rates are chosen on later minutes (days) of the training data, or, for unseen patients, on training
patients left out one by one. With heart beats and rhythms, methods whose clients take FedAvg's steps use
FedAvg's rate. Everything is judged by the mean over five seeds. In brackets: 95 % intervals over
**patients**, drawn again with all of their examples, since beats of one heart say little of another; with six
to 47 patients they are wide. A dash: not defined with some seed, as no example was called the class.
"""

MEANINGS: dict[str, str] = {
    "unseen": """\
**What it means.** Three patients are too few for a model of strangers' hearts: federated or pooled, it calls
many normal beats ventricular and no beat of class S, of which its patients had 77, and is no better than a
model of the patient's own five labelled minutes. It is a start that pays, though: trained on with these five
minutes it is better than they are alone, by .083 (.011 to .173) in the mean over patients, since it knows
ventricular beats that few of them had in so short a time. Only 17 beats of the judged are ventricular and one is a
fusion, so with six patients this is an example of the method rather than a judgement of it.""",
    "own": """\
**What it means.** A single shared model does not learn nine hearts whose classes hardly overlap: after fifteen
rounds FedAvg and FedProx still call everything normal. Models of each patient's own
five minutes are good, and no federated method is shown to beat them; fine-tuning and Ditto come close.
What the patients could teach each other shows in the pooled model alone, and there with an interval that
includes none. A patient with five labelled minutes needs no federation here; one without them does.""",
    "rr-gru": """\
**What it means.** One shared model of rhythm does not serve 47 hearts: FedAvg, FedProx and FedAdam find hardly any
beat of class S and are no better than models of each patient's own five minutes. A patient gains by taking the
shared model and training it on (.053, .008 to .099), or by a head of its own (FedPer, .023); no other
difference from local training is shown in the mean over patients. Many beats of class S are those of one
patient (record 232), whose five minutes tell the rest of its rhythm, so that local models look better over all
beats than they are for most patients.
The learning rate of the shared models is at the end of what was tried, and twenty rounds are few.""",
    "rr-convolution": """\
**What it means.** The temporal convolution says the same as the GRU: shared models are no better than models of
each patient's own five minutes, and a head of its own on shared layers is (FedPer, .041, .005 to .080). Fine-tuning
the shared model looks alike, but is not shown to differ here.""",
    "voices": """\
**What it means.** Nothing learned from the voice beats the patient's last score: it is off by 1.2 points, the best
shared model (FedAvg) by 1.4, and everything that adapts to a single patient by 2 or more. The score is a
straight line between a clinician's visits, so the last one says nearly all there is for some weeks. Among
what is trained, sharing is worth much: a model of a patient's own recordings is off by 2.6 points, and the more
of a model is shared, the less it follows the noise of one voice.""",
    "stream": """\
**What it means.** With 47 patients and one round in two minutes, the shared model calls nearly everything normal
for a quarter of an hour, and has learned something by the end only where it was trained on all data so far; on the
last three periods it never does. Patients who train alone are as good as pooled data after ten minutes.
Here models are kept current at home, and the shared one is for patients who begin. Of 47 patients, 12 to 27 report
a drift at least once in the seven watched periods; with 0.02 false alarms in a period seven would. The
server, where changes of single patients cancel, reports none.""",
    "known-drift": """\
**What it means.** All ways lose accuracy when a third of the clients changes. Training on the last three
periods recovers a third of the loss, on all data so far hardly anything: a shared model stays that of the
clients that did not change, and old data outweigh the new for a long time, alone as well. The server finds every drift within a period, without false alarms to speak of. Single clients find it within
about one period, but raise more than twice as many false alarms as stated: thresholds from 210 losses of
their own know too little of the tail.""",
}

STREAM = """\
## Streams

`fedjax_med.streams` follows data as they arrive: each period is predicted first and trained on afterwards, by
one compiled program for the whole stream. Clients watch their losses by Page and Hinkley's test; the server
watches what they tell it after each period. Thresholds are for one false alarm in 50 periods.
"""
