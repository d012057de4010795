"""What is shown of a drive.

Owns: the drive log (the only sequencer), totals, the creators' ranking, milestones, snapshots and
how fresh they are, and an erasable copy of the words that are shown.
Hears: `pledges` (DriveChanged, CreatorChanged, PledgeMade, PledgeChanged), `payments` (PaymentChanged).
Says: DriveLogged on `drive-log`, through the outbox; SnapshotTaken and Heartbeat on `snapshots`, past it.
"""
