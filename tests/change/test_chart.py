from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import t

from sb3_vgs_ppo.change import SelfStartingChart, Surprise
from sb3_vgs_ppo.errors import UserInputError

LOW = 0.4
"""A mean probability integral transform of a rollout whose returns are mostly below their prediction."""


def observe(chart: SelfStartingChart, shortfalls: npt.ArrayLike, pit: float = LOW) -> list[bool]:
    return [chart.observe(Surprise(float(shortfall), pit)).alarm for shortfall in np.asarray(shortfalls)]


def alarm_rate(streams: npt.NDArray[np.float64], alpha: float = 0.02, window: int = 500) -> float:
    """:return: alarms per rollout that could have raised one, over streams (n, rollouts)"""
    n_alarms = sum(sum(observe(SelfStartingChart(alpha, window), stream)) for stream in streams)
    return n_alarms / (len(streams) * (streams.shape[1] - 8))


def noise(n_streams: int = 40, n_rollouts: int = 308, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((n_streams, n_rollouts))


def autoregressive(correlation: float) -> npt.NDArray[np.float64]:
    """:return: streams of variance 1 with this correlation between neighbours"""
    innovations = noise() * math.sqrt(1 - correlation**2)
    streams = noise(seed=1)
    for rollout in range(1, streams.shape[1]):
        streams[:, rollout] = correlation * streams[:, rollout - 1] + innovations[:, rollout]
    return streams


def test_the_p_value_is_that_of_students_prediction_interval() -> None:
    chart = SelfStartingChart(alpha=1e-6, window=5, min_history=3)
    for shortfall in (100.0, -2.0, -1.0, 0.0, -3.0, -1.5):  # the window forgets the first
        chart.observe(Surprise(shortfall, 0.6))
    history = np.array([-2.0, -1.0, 0.0, -3.0, -1.5])
    expected = t.sf((0.5 - history.mean()) / (history.std(ddof=1) * math.sqrt(1 + 1 / 5)), df=4)
    assert chart.observe(Surprise(0.5, LOW)).p_value == pytest.approx(expected, rel=1e-9)


def test_nothing_is_evidence_before_there_is_a_history() -> None:
    chart = SelfStartingChart(alpha=0.4, min_history=3)
    assert observe(chart, [-1.0, 0.0, 50.0]) == [False] * 3
    assert observe(SelfStartingChart(alpha=0.4, min_history=3), [-1.0, 0.0, -1.0, 50.0]) == [False] * 3 + [True]


@pytest.mark.parametrize("surprise", [Surprise(50.0, 0.5), Surprise(-0.1, 0.1), Surprise(math.nan, 0.1)])
def test_there_is_no_alarm_unless_most_of_the_prediction_is_missed(surprise: Surprise) -> None:
    chart = SelfStartingChart(min_history=2)
    observe(chart, [-10.0, -10.1, -10.2])
    assert chart.observe(surprise) == (1.0, False)


def test_a_history_that_never_varied_is_no_measure() -> None:
    assert observe(SelfStartingChart(min_history=2), [-1.0, -1.0, -1.0, 5.0]) == [False] * 4


def test_a_change_is_reported_once_and_not_remembered() -> None:
    """The drop lasts four rollouts, falling off as the critic follows; the next one is as visible as the first."""
    chart = SelfStartingChart(min_history=4)
    learning = [-1.0, -1.2, -0.8, -1.1, -0.9]
    drop = [9.0, 5.0, 2.0, 0.5]
    assert observe(chart, [*learning, *drop]) == [False] * 5 + [True, False, False, False]
    history = chart.state_dict()["history"]
    assert history[:5] == learning
    assert t.sf((history[5] + 1.0) / (np.std(learning, ddof=1) * math.sqrt(1.2)), df=4) == pytest.approx(1e-3)
    assert len(history) == 6
    assert observe(chart, [-0.1, *drop]) == [False, True, False, False, False]


def test_a_rollout_within_the_prediction_ends_a_change() -> None:
    chart = SelfStartingChart(min_history=4)
    observe(chart, [-1.0, -1.2, -0.8, -1.1, 9.0])
    chart.observe(Surprise(0.5, 0.6))
    assert observe(chart, [-1.0, 9.0]) == [False, True]


def test_a_drop_that_the_critic_does_not_follow_becomes_usual() -> None:
    chart = SelfStartingChart(min_history=4)
    assert observe(chart, [-1.0, -1.2, -0.8, -1.1, 9.0]) == [False] * 4 + [True]
    stays = [9.0, 9.1, 8.9, 9.2, 9.0, 9.1, 8.9, 9.2, 9.1]
    assert observe(chart, [*stays, 12.0]) == [False] * 9 + [True]
    assert chart.state_dict()["history"][:5] == stays[4:]


def test_false_alarms_are_as_rare_as_stated_in_independent_normal_streams() -> None:
    """12,000 rollouts: the stated rate lies within four standard errors, 0.005. Short histories do not break it."""
    assert alarm_rate(noise()) == pytest.approx(0.02, abs=0.005)
    assert alarm_rate(noise(), window=10) == pytest.approx(0.02, abs=0.005)


@pytest.mark.parametrize("slope", [-0.02, -0.2])
def test_learning_makes_false_alarms_rarer(slope: float) -> None:
    """Returns run ahead of the critic by more and more. Where they outrun it for good, nothing is below prediction."""
    assert alarm_rate(noise() + slope * np.arange(308)) < 0.01


def test_a_learning_curve_that_settles_raises_few() -> None:
    """The lead of the returns over the critic vanishes within about a hundred rollouts: the price of adapting."""
    assert alarm_rate(noise() - 5.0 * np.exp(-np.arange(308) / 30)) < 0.04


@pytest.mark.parametrize("correlation", [0.5, 0.9])
def test_autocorrelation_does_not_break_the_rate(correlation: float) -> None:
    """It makes rollouts beyond the limit more frequent, and puts them together, where they count as one change."""
    assert alarm_rate(autoregressive(correlation)) < 2 * 0.02


def test_heavy_tails_multiply_false_alarms() -> None:
    """Student's t with three degrees of freedom, at a rate of 1 in 500: what docs/change.md warns of."""
    streams = np.random.default_rng(0).standard_t(3, (40, 308))
    assert 3.0 < alarm_rate(streams, alpha=0.002) / 0.002 < 10.0


@pytest.mark.parametrize(("shift", "found"), [(2.0, 0.08), (4.0, 0.66), (6.0, 0.99)])
def test_power_against_drops_of_known_size(shift: float, found: float) -> None:
    """A drop of so many standard deviations in one rollout after 40: found in it with the power of Student's test."""
    n_found = 0
    for stream in noise(400, 41, seed=2):
        chart = SelfStartingChart()
        chart.load_state_dict({"history": stream[:40].tolist(), "settling": 0})
        n_found += chart.observe(Surprise(stream[40] + shift, LOW)).alarm
    assert n_found / 400 == pytest.approx(found, abs=0.06)


def test_delay_of_a_drop_that_stays() -> None:
    """Four standard deviations from rollout 40 on: nearly all are found within three rollouts."""
    delays = []
    for stream in noise(200, 50, seed=3):
        chart = SelfStartingChart()
        chart.load_state_dict({"history": stream[:40].tolist(), "settling": 0})
        alarms = observe(chart, stream[40:] + 4.0)
        delays.append(alarms.index(True) if True in alarms else 10)
    assert np.mean(np.array(delays) < 1) > 0.6
    assert np.mean(np.array(delays) < 3) > 0.85


def test_a_saved_chart_goes_on_as_if_it_had_never_stopped() -> None:
    stream = np.concatenate([noise(1, 60)[0], [9.0, 4.0], noise(1, 60, seed=5)[0], [9.0]])
    whole = SelfStartingChart(alpha=0.05)
    expected = [whole.observe(Surprise(float(shortfall), LOW)) for shortfall in stream]
    for stop in (3, 61, 100):
        first, second = SelfStartingChart(alpha=0.05), SelfStartingChart(alpha=0.05)
        verdicts = [first.observe(Surprise(float(shortfall), LOW)) for shortfall in stream[:stop]]
        second.load_state_dict(first.state_dict())
        verdicts += [second.observe(Surprise(float(shortfall), LOW)) for shortfall in stream[stop:]]
        assert verdicts == expected


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"alpha": 0}, "alpha=0 is no number between 0 and 0.5"),
        ({"alpha": 0.5}, "alpha=0.5 is no number"),
        ({"alpha": "1e-3"}, "alpha='1e-3' is no number"),
        ({"min_history": 1}, "min_history=1, window=500; remedy: whole numbers with 2 <= min_history <= window"),
        ({"window": 7}, "min_history=8, window=7"),
        ({"window": 40.0}, "window=40.0"),
    ],
)
def test_values_that_cannot_be_used(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        SelfStartingChart(**kwargs)  # type: ignore[arg-type]
