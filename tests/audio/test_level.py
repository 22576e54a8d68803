"""How quiet and loud audio is brought to the level that models know."""

from __future__ import annotations

import numpy as np
import pytest

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES
from auricle.audio.level import LevelFollower

NOISE = np.random.default_rng(1).normal(0, 1, (200, WINDOW_SAMPLES)).astype(np.float32)
WINDOWS_PER_S = SAMPLE_RATE / WINDOW_SAMPLES


@pytest.mark.parametrize(
    ("level", "gain"), [(0.05, 1), (0.005, 10), (0.0001, 31.6), (0.0, 31.6), (0.5, 1)], ids=lambda value: f"{value:g}"
)
def test_quiet_audio_is_raised_by_up_to_30_db(level: float, gain: float) -> None:
    gains = LevelFollower().gains(NOISE * np.float32(level))
    assert gains.shape == (200, 1)
    assert gains == pytest.approx(gain, rel=0.15)


def test_loud_audio_is_lowered_if_that_is_wanted() -> None:
    assert LevelFollower(lowers=True).gains(NOISE * np.float32(0.1)) == pytest.approx(0.5, rel=0.15)
    assert LevelFollower(lowers=True).gains(NOISE * np.float32(0.5)) == pytest.approx(10 ** (-10 / 20), rel=0.01)


def test_a_rise_is_followed_at_once_and_a_fall_by_3_db_a_second() -> None:
    levels = np.r_[np.full(50, 0.005), np.full(10, 0.05), np.full(140, 0.0)].astype(np.float32)
    gains = 20 * np.log10(LevelFollower().gains(NOISE * levels[:, np.newaxis])[:, 0])
    assert gains[49] == pytest.approx(20, abs=1.5)
    assert gains[50:60] == pytest.approx(0, abs=1.5)
    assert np.diff(gains[70:]) == pytest.approx(3 / WINDOWS_PER_S, abs=0.01)


def test_a_constant_offset_is_not_loud() -> None:
    offset = NOISE * np.float32(0.005) + np.float32(0.3)
    assert LevelFollower().gains(offset) == pytest.approx(10, rel=0.15)
