"""The breaker opens far above the drive's own past, and closes by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.payments.screening.breaker import CALM_S, LEAST_DECLINES, SLOW_S, Breaker

BEGIN = 1_900_000_000


def fed(breaker: Breaker, begin: int, seconds: int, declined: int, charged: int) -> list[bool]:
    """So many tries in each second, with a check after each; whether it is open then."""
    states = []
    for second in range(begin, begin + seconds):
        for _ in range(declined):
            breaker.note(second, declined=True)
        for _ in range(charged):
            breaker.note(second, declined=False)
        breaker.check(second + 0.9)
        states.append(breaker.is_open)
    return states


def test_attack_on_a_busy_drive_opens_it_within_seconds() -> None:
    breaker = Breaker()
    assert not any(fed(breaker, BEGIN, 400, 1, 16))
    states = fed(breaker, BEGIN + 400, 10, 20, 16)
    assert states.index(True) < 6


def test_slow_attack_on_a_quiet_drive_opens_it() -> None:
    breaker = Breaker()
    assert any(fed(breaker, BEGIN, LEAST_DECLINES + 2, 1, 0))


def test_few_declines_never_open_it_whatever_their_ratio() -> None:
    breaker = Breaker()
    assert not any(fed(breaker, BEGIN, 1, LEAST_DECLINES - 1, 0))


def test_ordinary_declines_of_a_very_busy_drive_do_not_open_it() -> None:
    assert not any(fed(Breaker(), BEGIN, 400, 15, 85))


def test_drive_that_always_had_many_declines_needs_more_of_them() -> None:
    """A third of all tries declined is an attack on most drives, and an ordinary day for this one."""
    used_to_it, fresh = Breaker(), Breaker()
    for at in range(BEGIN, BEGIN + 3_000, 10):
        for number in range(4):
            used_to_it.note(at, declined=number == 0)
        assert not used_to_it.check(at + 0.9)
    assert used_to_it.past_ratio() > 0.2
    assert not any(fed(used_to_it, BEGIN + 3_000, 20, 8, 16))
    assert any(fed(fresh, BEGIN + 3_000, 20, 8, 16))


def test_it_closes_once_the_tries_were_calm_for_a_while_and_not_before() -> None:
    breaker = Breaker()
    fed(breaker, BEGIN, 20, 20, 16)
    assert breaker.is_open
    states = fed(breaker, BEGIN + 20, CALM_S + 70, 1, 16)
    assert states[CALM_S - 1]
    assert not states[-1]
    assert not any(fed(breaker, BEGIN + 20 + CALM_S + 70, SLOW_S, 1, 16))


def test_attack_is_no_part_of_the_past() -> None:
    breaker = Breaker()
    fed(breaker, BEGIN, 1_000, 20, 16)
    assert breaker.is_open
    assert breaker.past_ratio() < 0.2


def test_it_is_idle_an_hour_after_the_last_try() -> None:
    breaker = Breaker()
    fed(breaker, BEGIN, 3, 1, 1)
    breaker.check(BEGIN + 400)
    assert not breaker.is_idle
    breaker.check(BEGIN + 4_000)
    assert breaker.is_idle


@given(st.permutations([(BEGIN + second, number % 3 > 0) for second in range(8) for number in range(9)]))
def test_order_of_arrival_does_not_matter(tries: list[tuple[int, bool]]) -> None:
    breaker = Breaker()
    for at, declined in tries:
        breaker.note(at, declined=declined)
    assert breaker.check(BEGIN + 8)
    assert breaker.opened_at == BEGIN + 8
