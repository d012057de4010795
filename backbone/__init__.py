"""What at least three deployables need; outside `contracts/` it has never heard of a pledge."""
