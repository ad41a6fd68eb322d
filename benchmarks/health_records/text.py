"""The words of the page of health records, which numbers do not make by themselves."""

TITLES = {
    "gru": "GRU",
    "transformer": "transformer",
    "bag": "linear model of a summary of all visits",
    "last-visit": "linear model of the last visit",
}

INTRODUCTION = """\
# Health records

Patients are sequences of visits with codes, laboratory values and the days between them; hospitals learn
together who will be admitted again. Models are a GRU and a small transformer over visits
(`fedjax_med.models.visits`), and two linear models that do not know the order of visits: of a summary of all of
them, and of the last one alone.

    fedjax-med study synthetic-ehr --model gru

Everything is judged on the patients that the datasets keep for testing, learning rates are chosen on a
quarter of the training patients, with one seed. Numbers are means over seeds. In brackets: 95 % intervals, by a
bootstrap of the test patients within clients. Means over clients count each client once. *hospital's own
rate* knows nothing of a patient but the hospital, *local only* has a model of each client's own patients,
*best single site* the one of them that serves all clients' training patients best, *pooled* one of all
patients in one place. Bold is the federated method that was best on the patients kept for choosing.
"""

MEANINGS = {
    "synthetic-ehr": """\
Generated records (`datasets.draw_health_records`): ten hospitals that differ in patients, codes, laboratory
panels, frequency of visits and outcomes, and a risk that is known. Part of it is the order of events: an
infection after a surgery is dangerous, before it it is not.

**What it means.** Federation helps: with a GRU trained together patients are ranked better at each of the ten
hospitals than with one of its own, by .05 in the mean. At the mean hospital that is as good as with
all patients pooled; over all patients together FedAvg loses .02 to it, and Ditto's personal models do not, likely
because a shared model does not know how frequent the outcome is at a hospital. Federation is also what makes a
sequence model worth having here: hospitals alone have .737 with a linear model of the last visit and .719 with a
GRU, together .743 and .770. All stay far below the risk that patients were drawn with: 9,000 records for
training do not suffice to learn the rule.""",
    "diabetes130-visits": """\
Encounters of real patients with diabetes (Strack et al. 2014) whom the same payer had seen before, at most the
latest six; readmission within 30 days. The file has the order of encounters and no dates. A client holds the
encounters that it paid for and no others.

**What it means.** Who comes back within 30 days is hard to tell, with all patients pooled too (.64 at best).
Federation helps a little: over all patients together Ditto gains .02 over clients that train alone with either
sequence model, FedAvg .03 and .04 (without an interval here), FedProx next to nothing. What came before the
last encounter is worth .02 to a transformer (FedAvg, against the linear model of the last visit); for a GRU
no difference is shown. Six of the 17 clients have at most 15 test records, so means over clients have no
interval, and Ditto, the best on patients kept for choosing, is not the best on those for testing.""",
}

FIGURES = """\
## Figures

All of one GRU that the ten generated hospitals trained together (FedAvg, seed 0), of test patients.

![ROC of all patients and of hospitals](figures/health_records_roc.png)

![Embeddings of codes by the condition they stand for](figures/health_records_codes.png)

Nobody told the model which codes mean the same. Surgery and steroid courses, after which infections and
fractures are dangerous, lie apart from all others, their diagnoses and treatments in all variants together.

![The record of one patient with the part of each code](figures/health_records_record.png)

![Federated importance of the codes of conditions](figures/health_records_importance.png)

Parts of codes are integrated gradients, effects of visits are changes of the output when a visit says nothing
(`explanation.code_attributions`, `visit_effects`); both stay in the hospital. For the importance of codes a
hospital sends its AUROC without the codes of each condition, and its number of patients
(`explanation.code_importance`).
"""
