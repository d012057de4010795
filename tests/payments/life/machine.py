"""Any life of any payments, step by step against the plain model, with crashes between and within steps."""

from __future__ import annotations

from tests.payments.life.at_stripe import AtStripe
from tests.payments.life.comparison import Compared
from tests.payments.life.decisions import Decisions
from tests.payments.life.model import (
    SUCCEEDED,
)


class LivesOfPayments(AtStripe, Decisions, Compared):
    """All rules. At its end what is left is delivered, sent and placed, and everything is compared again."""

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.finish()
            self.run(self.database.close())
        self.runner.close()
        self.folder.cleanup()

    def finish(self) -> None:
        """Deliver everything and compare once more, with the statements too."""
        if not self.life.drives:
            return
        self.announce_drive(2)
        for number in range(len(self.pledges)):
            self.consume_pledge(number)
        self.deliver([self.account.events.index(each) for each in self.account.events], None)
        self.apply(None)
        self.processor.outcome = SUCCEEDED
        self.retry_refunds(None)
        self.place_fees(None)
        self.everything_agrees()
        assert not any(self.run(self.books.drift()).values())
        self.statements_agree()
