"""Drives, creators and pledges.

Owns: drives and their creators, pledges, donors and their texts (the only place where a donor's name, e-mail
address and message are stored), the idempotency keys of its own API.
Consumes: `payments` (PaymentChanged): the status of a pledge follows from the states of its payments.
Publishes: DriveChanged, CreatorChanged, PledgeMade and PledgeChanged on `pledges`.
"""
