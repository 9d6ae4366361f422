"""Capacity is arithmetic: units, proportions, and what an operator with 300 cameras is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from videostore.domain.capacity import FIGURES, Wanted, advice, needs

THREE_HUNDRED = Wanted(cameras=300, bitrate_bits=4e6, keep=timedelta(days=30))


def told(wanted):
    return {need.what: need.value for need in needs(wanted)}


def test_three_hundred_cameras_of_four_megabit_for_thirty_days():
    found = told(THREE_HUNDRED)
    assert found["footage held"] == 300 * 4e6 / 8 * 30 * 86400 == 388_800_000_000_000
    assert found["network"] == 1.2e9
    assert found["segments live"] == 77_760_000
    assert found["puts"] == 30
    assert found["hour keys live"] == 720


def test_what_the_ledger_costs_grows_with_cameras_and_with_keys_and_less_with_longer_keys():
    one, two, none = (told(replace(THREE_HUNDRED, cameras=n))["ledger"] for n in (1, 2, 0))
    assert two - one == one - none == 365 * 24 * (1006 + 779)
    assert none == 365 * 24 * 2 * 768
    assert (
        told(replace(THREE_HUNDRED, key_period=timedelta(hours=2)))["ledger"] * 2
        == told(THREE_HUNDRED)["ledger"]
    )


@pytest.mark.parametrize("what", ["footage held", "store to buy", "segments live", "catalogue"])
def test_half_the_time_costs_half(what):
    assert told(replace(THREE_HUNDRED, keep=timedelta(days=15)))[what] == told(THREE_HUNDRED)[what] / 2


def test_every_need_is_positive_and_says_why():
    for need in needs(replace(THREE_HUNDRED, cameras=1)):
        assert need.value > 0
        assert need.unit
        assert need.because


def test_every_figure_names_what_measures_it():
    assert all(figure.value > 0 and figure.unit and figure.source for figure in FIGURES.values())


def test_few_cameras_need_no_postgresql():
    assert any("PostgreSQL" in line for line in advice(THREE_HUNDRED))
    assert not any("PostgreSQL" in line for line in advice(replace(THREE_HUNDRED, cameras=8)))
