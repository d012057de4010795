"""Notifications to donors.

Owns: receipts, one per donation, and the outcome of each. Addresses and names are requested from pledges when
a receipt is sent, and never stored here. Consumes: `drive-log` (DriveLogged): a counted donation that came
from a pledge is owed a receipt. Publishes: nothing.
"""
