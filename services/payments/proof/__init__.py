"""The audit of a drive: ledger, payments, facts, drive log and totals, compared payment by payment."""
