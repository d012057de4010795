"""The lives of payments, against a plain model (`machine.py`)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.payments.life.machine import LivesOfPayments

EXAMPLES = int(os.environ.get("ATAA_LIVES", "80"))
"""`make lives` sets more."""

LivesOfPayments.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLivesOfPayments = LivesOfPayments.TestCase
