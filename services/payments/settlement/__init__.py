"""Fees, net amounts and payouts, read from the processor's balance transactions."""
