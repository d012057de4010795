"""What `make stack-status` says besides its table."""

from __future__ import annotations

import pytest

from stack.status import ProcessStatus, quarantine_line


def payments(**waiting: int) -> ProcessStatus:
    return ProcessStatus("payments", 1, 1, True, 0, waiting)


@pytest.mark.parametrize(
    ("many", "words"), [(1, "1 webhook of Stripe could not"), (3, "3 webhooks of Stripe could not")]
)
def test_webhooks_that_could_not_be_applied_are_said_in_one_line(many: int, words: str) -> None:
    gateway = ProcessStatus("gateway", 2, 2, True, 0, {})
    line = quarantine_line([gateway, payments(webhooks=4, set_aside=many)])
    assert line.startswith(words)
    assert "/v1/webhooks?state=set_aside" in line
    assert "\n" not in line


def test_nothing_is_said_where_none_is_set_aside_or_payments_does_not_answer() -> None:
    assert quarantine_line([payments(webhooks=4, set_aside=0)]) == ""
    assert quarantine_line([payments()]) == ""
