"""What was promised.

Owns: drives and their creators, pledges, donors and their words (the one place where a person's
name, e-mail and message live), the idempotency keys of its own doors.
Hears: `payments` (PaymentChanged): keeps a row a payment, from which a pledge's status follows.
Says, on `pledges`: DriveChanged, CreatorChanged, PledgeMade, PledgeChanged.
"""
