"""Who reports a drift, when, and how often without one."""

import numpy as np
import pytest

from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.streams import Stream, cross_entropy, table, watch

PERIODS, CLIENTS, EACH = 24, 4, 25


def toy(arrivals=EACH):
    sizes = np.full(CLIENTS, PERIODS * arrivals)
    arrays = ClientArrays({"x": np.zeros((sizes.sum(), 1), np.float32)}, sizes)
    dataset = FederatedDataset("toy", tuple(f"Clinic {i}" for i in range(CLIENTS)), arrays)
    return Stream(dataset, np.arange(PERIODS + 1)[:, None] * np.full(CLIENTS, arrivals))


STREAM = toy()
PERIOD = np.repeat(np.arange(1, PERIODS), CLIENTS * EACH)
CLIENT = np.tile(np.repeat(np.arange(CLIENTS), EACH), PERIODS - 1)


def draw(seed):
    """Losses without drift, of clients who differ in level and spread."""
    rng = np.random.default_rng(seed)
    level = np.array([0.2, 1.0, 3.0, 0.5])[CLIENT]
    return level * (1 + rng.exponential(0.5, len(PERIOD)))


def test_a_client_that_drifts_says_so_at_home():
    losses = draw(0)
    drifted = (CLIENT == 2) & (PERIOD >= 12)
    losses[drifted] += 3.0  # two of its deviations
    found = watch(losses, PERIOD, CLIENT, STREAM, reference=(1, 6), rate=0.005)
    mine = [a for a in found.alarms if a.client == 2 and a.period >= 12]
    assert mine[0].period == 12 and 1 <= mine[0].example <= EACH
    # Of three clients in twelve periods 0.2 false alarms are expected.
    assert sum(a.client in (0, 1, 3) for a in found.alarms if a.period >= 12) <= 1
    # Means are plain means.
    for p, c in ((1, 0), (12, 2), (23, 3)):
        want = losses[(PERIOD == p) & (CLIENT == c)].mean()
        np.testing.assert_allclose(found.loss[p, c], want)
    np.testing.assert_allclose(found.pooled[5], losses[PERIOD == 5].mean())
    assert np.isnan(found.loss[0]).all() and np.isnan(found.pooled[0])


def test_a_small_drift_of_all_is_found_by_the_server():
    """By a fifth of a deviation of each: too little for most clients, enough for all together."""
    delays = []
    for seed in range(3):
        losses = draw(seed)
        losses += (PERIOD >= 12) * 0.15 * np.array([0.2, 1.0, 3.0, 0.5])[CLIENT]
        found = watch(losses, PERIOD, CLIENT, STREAM, reference=(1, 6), rate=0.02)
        server = [a.period for a in found.alarms if a.client == -1 and a.period >= 12]
        delays += [server[0] - 12] if server else []
    assert len(delays) >= 2 and np.median(delays) <= 4


def test_false_alarms_come_about_as_often_as_stated():
    """Five streams of 17 watched periods; thresholds are of 150 losses each, so rates vary by some."""
    rate, home, server = 0.05, 0, 0
    for seed in range(5):
        found = watch(draw(100 + seed), PERIOD, CLIENT, STREAM, reference=(1, 6), rate=rate)
        home += sum(a.client >= 0 for a in found.alarms)
        server += sum(a.client < 0 for a in found.alarms)
        assert all(a.period > 6 for a in found.alarms)
    watched = 5 * (PERIODS - 7)
    assert rate / 3 < home / (watched * CLIENTS) < 3 * rate
    assert server / watched < 3 * rate


def test_clients_with_too_few_losses_are_named_and_left_out():
    losses = draw(1)
    losses[CLIENT == 1] = 0.0  # never wrong, so there is no deviation to measure in
    found = watch(losses, PERIOD, CLIENT, STREAM, reference=(1, 6))
    assert found.unwatched == (1,)
    assert all(a.client != 1 for a in found.alarms)


def test_the_table_has_a_row_for_every_period():
    losses = draw(0)
    losses[(CLIENT == 2) & (PERIOD >= 12)] += 6.0
    lines = table(watch(losses, PERIOD, CLIENT, STREAM, reference=(1, 6)), STREAM).split("\n")
    assert len(lines) == PERIODS + 2
    assert lines[2] == "| 0 | 100 | 4 |  |  |  |"
    row = [cell.strip() for cell in lines[14].split("|")]
    assert row[1] == "12" and row[2] == "100" and row[5].startswith("Clinic 2 (")
    assert "Clinic 2" in row[6]


def test_cross_entropy_by_hand():
    logits = np.array([[0.0, np.log(3.0)], [1000.0, 0.0]])
    got = cross_entropy(logits, np.array([1, 0]))
    np.testing.assert_allclose(got, [np.log(4 / 3), 0.0], atol=1e-12)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"reference": (0, 3)}, "reference must be periods from 1 to 22"),
        ({"reference": (4, 3)}, r"the first before the last, got \(4, 3\)"),
        ({"reference": (1, 23)}, "reference must be periods from 1 to 22"),
        ({"rate": 0.0}, "rate must be between 0 and 1"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        watch(draw(0), PERIOD, CLIENT, STREAM, **{"reference": (1, 6), **options})


def test_periods_of_warm_up_are_left_out():
    """Losses of a model that has just begun to learn change no alarm."""
    losses = draw(3)
    other = losses.copy()
    other[PERIOD < 4] *= 20
    found = [watch(x, PERIOD, CLIENT, STREAM, reference=(4, 9)) for x in (losses, other)]
    assert found[0].alarms == found[1].alarms
    assert found[0].pooled[2] != found[1].pooled[2]
