"""ROC curves by hand and against the definition of their area."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.attacks.roc import judge_attack, roc

scores = st.lists(st.integers(0, 5), min_size=2, max_size=30)


@given(scores, st.randoms(use_true_random=False))
def test_area_is_the_share_of_pairs_in_order(values, random):
    is_member = np.array([random.random() < 0.5 for _ in values])
    is_member[:2] = [True, False]
    values = np.array(values, float)
    above = values[is_member][:, None] - values[~is_member][None]
    expected = np.mean((above > 0) + 0.5 * (above == 0))
    assert roc(values, is_member).area == pytest.approx(expected)


@given(scores)
def test_weights_are_repetitions(values):
    values = np.array(values, float)
    is_member = np.arange(len(values)) % 2 == 0
    weight = np.arange(len(values)) % 3 + 1
    again = roc(np.repeat(values, weight), np.repeat(is_member, weight))
    assert roc(values, is_member, weight).area == pytest.approx(again.area)


def test_hits_at_few_false_alarms_by_hand():
    # 100 others at 0 .. 99, of 4 members two above them all, one above 99 of them, one below all.
    values = np.concatenate([np.arange(100.0), [200.0, 150.0, 98.5, -1.0]])
    is_member = np.arange(104) >= 100
    curve = roc(values, is_member)
    assert curve.hits_at(0.0) == 0.5
    assert curve.hits_at(0.01) == 0.75
    assert curve.hits_at(1.0) == 1.0


def test_only_members_are_refused():
    with pytest.raises(ValueError, match="members and others, got 3 of 3"):
        roc(np.zeros(3), np.ones(3, bool))


def test_intervals_hold_chance_and_what_is_better():
    rng = np.random.default_rng(0)
    is_member = rng.random((4, 150)) < 0.5
    noise = rng.normal(size=is_member.shape)
    nothing = judge_attack(noise, is_member)
    assert nothing.area.low < 0.5 < nothing.area.high
    # Normal scores a standard deviation apart: Phi(1 / sqrt(2)) = 0.760.
    something = judge_attack(noise + is_member, is_member)
    assert something.area.low < 0.760 < something.area.high
    assert something.area.high - something.area.low < 0.15
