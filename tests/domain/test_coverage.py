"""Coverage: every moment has exactly one state, and the strongest fact about it counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from videostore.domain.coverage import JITTER, State, Stretch, damaged, explain, total
from videostore.domain.segment import Span

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ALL = Span(START, START + 100 * SECOND)


def stretch(start, end, state=State.FOOTAGE, detail=""):
    return Stretch(Span(START + start * SECOND, START + end * SECOND), state, detail)


stretches = st.builds(
    lambda start, length, state, detail: stretch(start, start + length, state, detail),
    st.integers(-20, 110),
    st.integers(1, 60),
    st.sampled_from([state for state in State if state is not State.UNEXPLAINED]),
    st.sampled_from(["", "a", "b"]),
)


@given(st.lists(stretches, max_size=12))
def test_every_moment_has_one_state_and_it_is_the_strongest(facts):
    explained = explain(ALL, facts)
    assert explained[0].span.start == ALL.start
    assert explained[-1].span.end == ALL.end
    assert all(a.span.end == b.span.start for a, b in pairwise(explained))
    ranks = list(State)
    for second in range(100):
        moment = Span(START + second * SECOND, START + (second + 1) * SECOND)
        strongest = min(
            (ranks.index(fact.state) for fact in facts if fact.span.contains(moment)),
            default=ranks.index(State.UNEXPLAINED),
        )
        (found,) = [one for one in explained if one.span.contains(moment)]
        assert ranks.index(found.state) == strongest
        if found.state is not State.UNEXPLAINED:
            assert found.detail in {
                fact.detail for fact in facts if fact.state is found.state and fact.span.overlaps(found.span)
            }


@given(st.lists(stretches, max_size=12))
def test_the_sums_are_the_whole(facts):
    assert sum(total(explain(ALL, facts)).values(), timedelta(0)) == ALL.duration


@given(st.lists(stretches, max_size=8), st.randoms())
def test_the_order_of_facts_does_not_matter_to_the_states(facts, random):
    shuffled = list(facts)
    random.shuffle(shuffled)
    assert total(explain(ALL, facts)) == total(explain(ALL, shuffled))


def test_segments_that_nearly_touch_are_one_stretch_and_a_real_hole_is_not_hidden():
    jitter = JITTER / SECOND
    facts = [stretch(0, 10), stretch(10 + jitter, 20), stretch(20 + 2 * jitter, 100)]
    assert [one.state for one in explain(ALL, facts)] == [State.FOOTAGE, State.UNEXPLAINED, State.FOOTAGE]


def test_where_packets_were_lost_footage_is_damaged_and_the_rest_is_a_gap():
    footage = [stretch(0, 40), stretch(40, 100)]
    losses = [stretch(30, 50, State.GAP, "packet-loss"), stretch(95, 120, State.GAP, "packet-loss")]
    found = explain(Span(START, START + 110 * SECOND), [*footage, *losses, *damaged(footage, losses)])
    assert found == [
        stretch(0, 30),
        stretch(30, 50, State.DAMAGED, "packet-loss"),
        stretch(50, 95),
        stretch(95, 100, State.DAMAGED, "packet-loss"),
        stretch(100, 110, State.GAP, "packet-loss"),
    ]


def test_nothing_known_is_said_to_be_unexplained():
    assert explain(ALL, []) == [Stretch(ALL, State.UNEXPLAINED)]
