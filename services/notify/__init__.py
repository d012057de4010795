"""Notifications to donors.

Owns: receipts, one a donation, and what became of each. Addresses and names are asked of pledges
when a receipt is sent and never stored here.
Consumes: `drive-log` (DriveLogged): a counted donation that came from a pledge is owed a receipt.
Publishes: nothing.
"""
