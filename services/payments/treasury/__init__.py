"""What a treasurer reads: payments, a drive's ledger, its trial balance and its statement."""
