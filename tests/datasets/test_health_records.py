import numpy as np
import pytest

from fedjax_med.data import DataError, check
from fedjax_med.datasets import draw_health_records, health_records
from fedjax_med.datasets.record_rule import (
    ACUTE,
    CHRONIC,
    CODES_PER_VISIT,
    CONDITIONS,
    LABS,
    code_names,
    history_logit,
)

SMALL = {"num_hospitals": 4, "num_patients": 1200, "max_visits": 8}


@pytest.fixture(scope="module")
def records():
    return draw_health_records(**SMALL)


def log_odds(p):
    return np.log(p) - np.log1p(-p)


def example(examples, row):
    return {name: leaf[row] for name, leaf in examples.items()}


def logit_of_one(patient, names):
    """The rule of the module, in words and loops, from one patient's record."""
    visits = int(patient["visits"])
    treated = [
        {name.partition(",")[0] for c in patient["codes"][v] if "treatment" in (name := names[c])}
        for v in range(visits)
    ]
    effects = dict(zip(CHRONIC, (0.0, 0.2, 1.0, 0.7, 0.6, 0.3), strict=True))
    logit = sum(effects.get(condition, 0.0) for condition in treated[-1])
    for first, second in (("surgery", "infection"), ("steroid course", "fracture")):
        seen = {c: [v for v in range(visits) if c in treated[v]] for c in (first, second)}
        if seen[first] and seen[second]:
            logit += 2.0 * np.sign(seen[second][-1] - seen[first][-1])
    logit += 0.25 * (float(patient["static"][0]) - 60) / 10
    days_ago, recent = 0.0, 0
    for v in reversed(range(1, visits)):
        days_ago += float(patient["gap"][v])
        recent += days_ago <= 182
    logit += 0.2 * min(recent, 4)
    creatinine = [float(v) for v in patient["labs"][:visits, 0] if not np.isnan(v)]
    if creatinine:
        logit += 0.4 * min(max((creatinine[-1] - 80) / 18, -1), 3)
    return logit


def test_the_risk_is_the_stated_rule(records):
    names = records.dataset.feature_names
    for split, arrays in records.dataset.splits().items():
        logit = history_logit(arrays.examples)
        want = [logit_of_one(example(arrays.examples, row), names) for row in range(0, 100)]
        np.testing.assert_allclose(logit[:100], want, atol=1e-9)
        # What is left is one constant per hospital.
        left = log_odds(records.risk[split]) - logit
        for begin, end in zip(arrays.offsets[:-1], arrays.offsets[1:], strict=True):
            assert np.ptp(left[begin:end]) < 1e-9


def test_outcomes_follow_the_risk(records):
    y = np.concatenate([a.examples["y"] for a in records.dataset.splits().values()])
    risk = np.concatenate([*records.risk.values()])
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1)):
        some = (risk >= low) & (risk < high)
        # Four standard deviations of a sum of Bernoulli draws.
        bound = 4 * np.sqrt((risk[some] * (1 - risk[some])).sum())
        assert some.sum() > 50 and abs(y[some].sum() - risk[some].sum()) < bound


def test_only_the_order_of_events_tells_surgery_before_infection(records):
    arrays = records.dataset.train
    number = arrays.examples["visits"]
    codes = arrays.examples["codes"].copy()
    for row, n in enumerate(number):
        codes[row, :n] = codes[row, :n][::-1]
    backwards = history_logit({**arrays.examples, "codes": codes})
    names = np.array(records.dataset.feature_names)
    acute = np.isin([name.partition(",")[0] for name in names], ACUTE)
    some = acute[arrays.examples["codes"]].any(axis=(1, 2))
    change = np.abs(backwards - history_logit(arrays.examples))
    assert (change[some] > 1).mean() > 0.2
    assert change[number == 1].max() == 0


def test_records_are_what_is_described(records):
    dataset = records.dataset
    check(dataset, allow_missing=True)
    e = dataset.train.examples
    real = np.arange(SMALL["max_visits"]) < e["visits"][:, None]
    assert e["visits"].min() >= 1 and e["codes"].shape[2] == CODES_PER_VISIT
    assert not e["codes"][~real].any() and np.isnan(e["labs"][~real]).all()
    assert not e["gap"][~real].any() and not e["gap"][:, 0].any()
    assert (e["gap"][:, 1:][real[:, 1:]] >= 1).all()
    assert dataset.feature_names == code_names() and e["codes"].max() < len(code_names())
    assert set(records.risk) == set(dataset.splits()) and "risk" not in e
    for visit in e["codes"][real][:500]:
        given = visit[visit > 0]
        assert len(set(given)) == len(given)
    stands_for = np.array(["", *CONDITIONS])[records.condition_of_code + 1]
    for name, condition in zip(code_names(), stands_for, strict=True):
        assert name.partition(",")[0] == condition or condition == ""


def test_hospitals_differ_in_everything_or_in_nothing():
    def spreads(differences):
        """Between hospitals: shares of a code among three, measurements, visits, outcomes."""
        dataset = draw_health_records(
            num_hospitals=6, num_patients=12_000, site_differences=differences
        ).dataset
        e, owner = dataset.train.examples, np.repeat(np.arange(6), dataset.train.sizes)
        first = np.array(dataset.feature_names)
        codes = [
            np.isin(first, [f"hypertension, treatment {v}" for v in "ABC"[:n]]) for n in (1, 3)
        ]
        counts = [c[e["codes"]].sum(axis=(1, 2)) for c in codes]
        measured = (~np.isnan(e["labs"][:, :, 4])).sum(axis=1)
        pairs = (counts, (measured, e["visits"]), (e["visits"], np.ones(len(owner))))
        pairs += ((e["y"], np.ones(len(owner))),)
        by_hospital = [np.bincount(owner, a) / np.bincount(owner, b) for a, b in pairs]
        return np.array([np.ptp(share) / share.mean() for share in by_hospital])

    alike, different = spreads(0.0), spreads(1.0)
    # Ranges of six shares of some hundred patients each; seeds are fixed.
    assert (alike < [0.2, 0.2, 0.1, 0.35]).all(), alike
    assert (different > [1.0, 0.6, 0.3, 0.6]).all(), different


def test_values_are_not_missing_at_random(records):
    e = records.dataset.train.examples
    names = np.array([name.partition(",")[0] for name in records.dataset.feature_names])
    diabetic = (names == "diabetes")[e["codes"]].any(axis=2)
    real = np.arange(e["codes"].shape[1]) < e["visits"][:, None]
    hba1c = e["labs"][:, :, 1]
    measured = ~np.isnan(hba1c)
    # 0.4 times as often where there is no reason.
    assert measured[real & diabetic].mean() > 1.7 * measured[real & ~diabetic].mean()
    assert np.nanmean(hba1c[diabetic]) > np.nanmean(hba1c[~diabetic]) + 0.5
    assert len(LABS) == e["labs"].shape[2]


def test_the_same_seed_gives_the_same_records(records):
    assert draw_health_records(**SMALL).dataset.fingerprint() == records.dataset.fingerprint()
    assert health_records(**SMALL, seed=1).fingerprint() != records.dataset.fingerprint()
    assert health_records(**SMALL).fingerprint() == records.dataset.fingerprint()


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"num_hospitals": 0}, "num_hospitals must be at least 1, got 0"),
        ({"num_patients": 100}, "num_patients must be at least 20 per hospital, 200, got 100"),
        ({"max_visits": 0}, "max_visits must be at least 1, got 0"),
        ({"site_differences": 1.5}, "site_differences must be from 0 to 1, got 1.5"),
        ({"test": 1.0}, "test must be a fraction"),
    ],
)
def test_generator_refuses(options, sentence):
    with pytest.raises(DataError, match=sentence):
        health_records(**options)
