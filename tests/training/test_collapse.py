"""Every guard, provoked by figures."""

import json
import math

import pytest

from galip_keras.training.collapse import Guard

pytestmark = pytest.mark.every_backend

HEALTHY = {
    "d_real": 0.5,
    "d_mismatch": 0.8,
    "d_fake": 0.4,
    "gradient_penalty": 0.3,
    "g_adversarial": -0.7,
    "similarity": 0.2,
    "d_gradient_norm": 4.0,
    "g_gradient_norm": 2.0,
}
EASY = {**HEALTHY, "d_real": 0.015, "d_fake": 0.004}
EXPLODED = {**HEALTHY, "gradient_penalty": 1001.0}
BROKEN = {**HEALTHY, "d_fake": math.nan}
GOOD = {"cmmd": 5.0, "diversity": 50.0}
COLLAPSED = {"cmmd": 5.0, "diversity": 9.0}


@pytest.fixture
def guard():
    return Guard()


def test_nothing_is_noticed_for_healthy_figures(guard):
    for step in range(10):
        guard.check_losses(HEALTHY)
        guard.check_samples(step, GOOD)
    assert guard.reason is None
    assert not guard.is_final


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [n for n in HEALTHY if "norm" not in n])
def test_not_a_number_is_final(guard, name, value):
    guard.check_losses({**HEALTHY, name: value})
    assert guard.reason == f"not a number: {name}"
    assert guard.is_final


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["d_gradient_norm", "g_gradient_norm"])
def test_gradients_may_overflow(guard, name, value):
    guard.check_losses({**HEALTHY, name: value})
    assert guard.reason is None


@pytest.mark.parametrize(("penalty", "is_wrong"), [(999.0, False), (1001.0, True)])
def test_exploded_penalty(guard, penalty, is_wrong):
    guard.check_losses({**HEALTHY, "gradient_penalty": penalty})
    assert ("penalty exploded" in (guard.reason or "")) == is_wrong
    assert not guard.is_final


@pytest.mark.parametrize(
    ("reports", "is_wrong"),
    [
        ([EASY] * 2, False),
        ([EASY] * 3, True),
        ([EASY, EASY, HEALTHY, EASY, EASY], False),
        ([EASY, EASY, HEALTHY, EASY, EASY, EASY], True),
        # Either loss alone tells nothing.
        ([{**EASY, "d_fake": 0.4}] * 3, False),
        ([{**EASY, "d_real": 0.5}] * 3, False),
    ],
)
def test_saturated_discriminator_after_three_reports_in_a_row(guard, reports, is_wrong):
    for figures in reports:
        assert guard.reason is None
        guard.check_losses(figures)
    assert ("saturated" in (guard.reason or "")) == is_wrong
    assert not guard.is_final


@pytest.mark.parametrize(("diversity", "is_wrong"), [(11.0, False), (9.0, True)])
def test_collapsed_samples_differ_less_than_they_did(guard, diversity, is_wrong):
    guard.check_samples(1, GOOD)
    # The most that there was counts.
    guard.check_samples(2, {**GOOD, "diversity": 40.0})
    guard.check_samples(3, {**GOOD, "diversity": diversity})
    assert ("collapsed" in (guard.reason or "")) == is_wrong
    assert not guard.is_final


@pytest.mark.parametrize(
    ("first", "best", "value", "is_wrong"),
    [
        # Three times the best, where that is far from where it began.
        (2.0, 2.0, 5.9, False),
        (2.0, 2.0, 6.1, True),
        # Half-way back, where three times the best is still near to it.
        (20.0, 2.0, 10.9, False),
        (20.0, 2.0, 11.1, True),
    ],
)
def test_monitored_figure_far_above_its_best(guard, first, best, value, is_wrong):
    guard.check_samples(10, {**GOOD, "cmmd": first})
    guard.check_samples(20, {**GOOD, "cmmd": best})
    assert guard.reason is None
    assert not guard.check_samples(30, {**GOOD, "cmmd": value})
    assert ("far above its best, 2 at step" in (guard.reason or "")) == is_wrong
    assert not guard.is_final


def test_monitored_figure_that_is_not_a_number_is_final(guard):
    guard.check_samples(1, GOOD)
    assert not guard.check_samples(2, {**GOOD, "cmmd": math.nan})
    assert guard.reason == "not a number: cmmd"
    assert guard.is_final
    assert guard.state["best_step"] == 1


def test_the_best_is_remembered(guard):
    values = [5.0, 3.0, 4.0, 3.0, 2.0]
    were_best = [
        guard.check_samples(step, {**GOOD, "cmmd": value})
        for step, value in enumerate(values)
    ]
    assert were_best == [True, True, False, False, True]
    assert guard.state["best"] == 2.0
    assert guard.state["best_step"] == 4


def test_nothing_is_best_once_something_is_wrong(guard):
    guard.check_samples(1, GOOD)
    assert not guard.check_samples(2, {**COLLAPSED, "cmmd": 1.0})
    guard.go_on()
    guard.check_losses(EXPLODED)
    assert not guard.check_samples(3, {**GOOD, "cmmd": 1.0})
    assert guard.state["best_step"] == 1


def test_the_first_reason_counts(guard):
    guard.check_losses(EXPLODED)
    for _ in range(3):
        guard.check_losses(EASY)
    assert "penalty" in guard.reason


def test_going_on_warns_once_a_kind():
    warnings = []
    guard = Guard(goes_on=True, warn=warnings.append)
    guard.check_samples(0, GOOD)
    for step in range(1, 5):
        guard.check_losses(EXPLODED)
        guard.check_losses(EASY)
        guard.check_samples(step, COLLAPSED)
        guard.check_samples(step, {**GOOD, "cmmd": 16.0})
    assert guard.reason is None
    # In the order in which they were noticed: two of three easy reports come between.
    kinds = ["penalty", "collapsed", "far above"]
    assert len(warnings) == len(kinds)
    assert all(kind in warning for kind, warning in zip(kinds, warnings))
    # Nor again in a run that is resumed.
    resumed = Guard(goes_on=True, warn=warnings.append)
    resumed.state.update(json.loads(json.dumps(guard.state)))
    resumed.check_losses(EXPLODED)
    assert len(warnings) == len(kinds)


def test_going_on_still_stops_at_not_a_number():
    warnings = []
    guard = Guard(goes_on=True, warn=warnings.append)
    guard.check_losses(EXPLODED)
    guard.check_losses(BROKEN)
    assert guard.reason == "not a number: d_fake"
    assert guard.is_final
    assert len(warnings) == 1


def test_go_on_forgets(guard):
    guard.check_samples(1, GOOD)
    for _ in range(3):
        guard.check_losses(EASY)
    guard.go_on()
    assert guard.reason is None
    # Another three in a row, not one.
    guard.check_losses(EASY)
    guard.check_losses(EASY)
    assert guard.reason is None
    guard.check_losses(BROKEN)
    guard.go_on()
    assert guard.reason is None
    assert not guard.is_final
    assert guard.state["best_step"] == 1


def test_state_survives_as_json(guard):
    guard.check_samples(1, GOOD)
    guard.check_losses(EASY)
    guard.check_losses(EASY)
    resumed = Guard()
    resumed.state = json.loads(json.dumps(guard.state))
    assert not resumed.check_samples(2, {**GOOD, "cmmd": 6.0})
    resumed.check_losses(EASY)
    assert "saturated" in resumed.reason
