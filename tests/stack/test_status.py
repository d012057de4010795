"""The line about quarantined webhooks of `make stack-status`."""

from __future__ import annotations

import pytest

from stack.status import ProcessStatus, quarantine_line


def payments(**waiting: int) -> ProcessStatus:
    return ProcessStatus("payments", 1, 1, True, 0, waiting)


@pytest.mark.parametrize(
    ("many", "start"), [(1, "1 webhook from Stripe could not"), (3, "3 webhooks from Stripe could not")]
)
def test_quarantined_webhooks_are_reported_in_one_line(many: int, start: str) -> None:
    gateway = ProcessStatus("gateway", 2, 2, True, 0, {})
    line = quarantine_line([gateway, payments(webhooks=4, set_aside=many)])
    assert line.startswith(start)
    assert "/v1/webhooks?state=set_aside" in line
    assert "\n" not in line


def test_no_line_without_quarantined_webhooks_or_without_payments() -> None:
    assert quarantine_line([payments(webhooks=4, set_aside=0)]) == ""
    assert quarantine_line([payments()]) == ""
