"""Recording facts and restating payments: rows, ledger, estimates, announcements, requests for lookups."""
