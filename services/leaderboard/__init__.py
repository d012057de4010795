"""The public figures of a drive.

Owns: each drive's log (of which it is the only writer), totals, the creators' ranking, milestones, snapshots
and their freshness, and an erasable copy of the donors' display texts.
Consumes: `pledges` (DriveChanged, CreatorChanged, PledgeMade, PledgeChanged), `payments` (PaymentChanged).
Publishes: DriveLogged on `drive-log`, through the outbox; SnapshotTaken and Heartbeat on `snapshots`,
directly to the bus.
"""
