"""Who is refused, and which checkouts are used up."""

from __future__ import annotations

from itertools import count

import pytest

from services.payments.screening.domain import (
    ALL_DRIVES,
    DECLINES_OF_A_CARD,
    DECLINES_UNDER_ATTACK,
    DECLINES_WHILE_CLOSED,
    REFUSED_S,
    TRIES_OF_A_CHECKOUT,
    TRIES_UNDER_ATTACK,
    RefusedReason,
    Screening,
    Try,
    is_small,
    is_to_be_held,
)

AT = 1_900_000_000.0
_payments = count(1)


def tried(client: str | None = "client_a", *, declined: bool = True, payment: str = "",
          card: str | None = None,
          at: float = AT, small: bool = True, drive: str = "drv_1") -> Try:  # fmt: skip
    name = payment or f"pay_{next(_payments)}"
    return Try(at, name, drive, client, card, declined, small)


def under_attack(scope: str = ALL_DRIVES) -> Screening:
    screening = Screening()
    screening.restore([(scope, AT - 10)], AT - 10)
    return screening


def refused_of(screening: Screening, *tries: Try, now: float = AT) -> list[str]:
    for one in tries:
        screening.note(one)
    return [each.client for each in screening.check(now).refused]


def test_client_with_declines_only_is_refused_under_attack() -> None:
    tries = [tried() for _ in range(DECLINES_UNDER_ATTACK)]
    assert refused_of(under_attack(), *tries) == ["client_a"]
    assert refused_of(under_attack(), *tries[1:]) == []
    assert refused_of(Screening(), *tries) == []


def test_attack_on_one_drive_refuses_nobody_elsewhere() -> None:
    screening = under_attack("drv_other")
    assert refused_of(screening, *(tried() for _ in range(DECLINES_UNDER_ATTACK))) == []
    assert refused_of(under_attack("drv_1"), *(tried() for _ in range(DECLINES_UNDER_ATTACK))) == ["client_a"]


def test_school_behind_one_address_is_not_refused_under_attack() -> None:
    gifts = [tried(declined=number % 3 == 0) for number in range(90)]
    assert refused_of(under_attack(), *gifts) == []


def test_address_with_declines_far_past_what_people_do_is_refused_without_an_attack() -> None:
    screening = Screening()
    spread = [tried(at=AT - 100 * number, small=False) for number in range(DECLINES_WHILE_CLOSED)]
    assert refused_of(screening, *spread) == ["client_a"]
    assert refused_of(Screening(), *spread, tried(declined=False)) == []


def test_clients_seen_before_the_breaker_opened_are_refused_when_it_opens() -> None:
    screening = Screening()
    assert refused_of(screening, *(tried(client=f"client_{one // 3}") for one in range(24))) == []
    decisions_of_the_rest = [tried(client=None) for _ in range(10)]
    assert len(refused_of(screening, *decisions_of_the_rest)) == 8


def test_refusal_ends_and_the_next_decline_refuses_again() -> None:
    screening = under_attack()
    refused_of(screening, *(tried() for _ in range(DECLINES_UNDER_ATTACK)))
    assert refused_of(screening, tried(), now=AT + 1) == []
    screening.restore([(ALL_DRIVES, AT)], AT)
    assert refused_of(screening, tried(at=AT + REFUSED_S + 1), now=AT + REFUSED_S + 1) == ["client_a"]


def test_declines_are_forgotten_after_an_hour() -> None:
    screening = under_attack()
    old = [tried(at=AT - 3_700) for _ in range(DECLINES_UNDER_ATTACK - 1)]
    assert refused_of(screening, *old, tried()) == []


def test_card_declined_too_often_makes_the_client_a_suspect() -> None:
    tries = [tried(client=f"client_{one}", card="card_1") for one in range(DECLINES_OF_A_CARD + 1)]
    screening = Screening()
    for one in tries:
        screening.note(one)
    (refused,) = screening.check(AT).refused
    assert (refused.client, refused.reason) == (f"client_{DECLINES_OF_A_CARD}", RefusedReason.CARD)
    assert refused_of(Screening(), *tries[1:]) == []


def test_client_without_a_name_is_never_refused() -> None:
    assert refused_of(under_attack(), *(tried(client=None) for _ in range(50))) == []


@pytest.mark.parametrize(
    ("attacked", "small", "limit"),
    [
        (False, True, TRIES_OF_A_CHECKOUT),
        (True, True, TRIES_UNDER_ATTACK),
        (True, False, TRIES_OF_A_CHECKOUT),
    ],
)
def test_checkout_is_used_up_after_so_many_declines(attacked: bool, small: bool, limit: int) -> None:
    screening = under_attack() if attacked else Screening()
    for number in range(1, limit + 1):
        screening.note(tried(client=None, payment="pay_x", small=small))
        assert screening.check(AT).exhausted == ({"pay_x"} if number == limit else set())


def test_only_small_gifts_of_suspects_are_held_and_only_under_attack() -> None:
    assert is_to_be_held(2, 0, small=True, under_attack=True)
    assert not is_to_be_held(2, 0, small=True, under_attack=False)
    assert not is_to_be_held(2, 0, small=False, under_attack=True)
    assert not is_to_be_held(1, 0, small=True, under_attack=True)
    assert not is_to_be_held(3, 1, small=True, under_attack=True)


def test_small_is_twenty_times_the_least_that_stripe_charges() -> None:
    assert is_small(1_000, "USD")
    assert not is_small(1_001, "USD")
    assert is_small(1_000, "JPY")


def test_restart_under_attack_judges_earlier_tries_as_at_their_own_time() -> None:
    """A donor who mistyped before the attack keeps the checkout; one who did under attack does not."""
    screening = Screening()
    screening.restore([(ALL_DRIVES, AT - 60)], AT)
    for _ in range(TRIES_UNDER_ATTACK):
        screening.note(tried(payment="pay_before", client=None, at=AT - 1_800))
        screening.note(tried(payment="pay_under", client=None, at=AT - 30))
    assert screening.check(AT).exhausted == {"pay_under"}


def test_restart_under_attack_refuses_no_client_whose_refusal_is_over() -> None:
    screening = Screening()
    screening.restore([(ALL_DRIVES, AT - 3_000)], AT)
    old = [tried("client_old", at=AT - REFUSED_S - 60) for _ in range(DECLINES_UNDER_ATTACK)]
    new = [tried("client_new", at=AT - REFUSED_S + 60) for _ in range(DECLINES_UNDER_ATTACK)]
    assert refused_of(screening, *old, *new) == ["client_new"]
    assert refused_of(screening, tried("client_old", at=AT + 1), now=AT + 1) == ["client_old"]
