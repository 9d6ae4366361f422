"""Logging in: what was proved, and nothing less, says who somebody is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videostore.domain.identity import CODE_TRIES, Fault, History, Proof, judge_claims, judge_proof

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SKEW = timedelta(seconds=30)
GOOD = {
    "iss": "https://id.example",
    "sub": "248289761001",
    "aud": "videostore",
    "exp": NOW.timestamp() + 60,
    "iat": NOW.timestamp(),
    "nonce": "n-0S6_WzA2Mj",
}


def judge(claims, nonce="n-0S6_WzA2Mj"):
    return judge_claims(
        claims, issuer="https://id.example", client_id="videostore", nonce=nonce, skew=SKEW, now=NOW
    )


def test_a_local_login_needs_everything_at_once():
    """Exhaustive: of all combinations one is let in."""
    let_in = [
        (suspended, password, step, wrong)
        for suspended, password, step, wrong in product(
            (False, True), (False, True), (None, 7, 8, 9), range(CODE_TRIES + 2)
        )
        if judge_proof(Proof("a" * 64, suspended, password, step), History(wrong, 7)) is None
    ]
    assert {case[:3] for case in let_in} == {(False, True, 8), (False, True, 9)}
    assert {case[3] for case in let_in} == set(range(CODE_TRIES))
    assert judge_proof(None, History()) is Fault.STAFF_UNKNOWN


def test_a_locked_account_says_nothing_about_the_password():
    for password in (True, False):
        assert judge_proof(Proof("a" * 64, False, password, 9), History(CODE_TRIES)) is Fault.LOCKED


def test_the_claims_of_a_token_for_us_and_now_are_believed():
    assert judge(GOOD) is None
    assert judge({**GOOD, "aud": ["videostore"], "azp": "videostore"}) is None
    without = {name: value for name, value in GOOD.items() if name != "nonce"}
    assert judge(without, nonce=None) is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"iss": "https://id.example/"}, Fault.ISSUER_WRONG),
        ({"iss": None}, Fault.ISSUER_WRONG),
        ({"aud": "another"}, Fault.AUDIENCE_WRONG),
        ({"aud": ["videostore", "another"]}, Fault.AUDIENCE_WRONG),
        ({"aud": []}, Fault.AUDIENCE_WRONG),
        ({"azp": "another"}, Fault.AUDIENCE_WRONG),
        ({"sub": ""}, Fault.TOKEN_MALFORMED),
        ({"sub": 7}, Fault.TOKEN_MALFORMED),
        ({"sub": "x" * 256}, Fault.TOKEN_MALFORMED),
        ({"exp": None}, Fault.TOKEN_MALFORMED),
        ({"exp": "2099"}, Fault.TOKEN_MALFORMED),
        ({"exp": True}, Fault.TOKEN_MALFORMED),
        ({"exp": float("nan")}, Fault.TOKEN_MALFORMED),
        ({"iat": None}, Fault.TOKEN_MALFORMED),
        ({"nbf": "now"}, Fault.TOKEN_MALFORMED),
        ({"exp": NOW.timestamp() - 30}, Fault.TOKEN_EXPIRED),
        ({"iat": NOW.timestamp() + 31}, Fault.TOKEN_FROM_FUTURE),
        ({"nbf": NOW.timestamp() + 31}, Fault.TOKEN_FROM_FUTURE),
        ({"nonce": "another"}, Fault.NONCE_WRONG),
        ({"nonce": None}, Fault.NONCE_WRONG),
    ],
)
def test_each_claim_that_is_wrong_is_named(changes, fault):
    assert judge({**GOOD, **changes}) is fault


@pytest.mark.parametrize("changes", [{"exp": NOW.timestamp() - 29}, {"iat": NOW.timestamp() + 30}])
def test_clocks_may_differ_by_the_skew(changes):
    assert judge({**GOOD, **changes}) is None


ANYTHING = st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.text())


@given(st.fixed_dictionaries(dict.fromkeys(GOOD, ANYTHING)))
def test_no_claims_of_any_form_are_believed_or_break_the_judge(claims):
    assert judge(claims) is not None
