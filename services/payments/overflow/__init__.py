"""The overflow lane: prepared Payment Links for pledges whose wait in the checkout queue would be long."""
