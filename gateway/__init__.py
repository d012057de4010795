"""The only public entry: every request from outside arrives here.

Owns: API keys and browser sessions (their hashes) and limits; in memory, the newest totals of each drive,
    the open live streams and the requests held by `Prefer: wait`.
Consumes: all of `snapshots` and the tail of `drive-log`, without a consumer group.
Publishes: nothing. It forwards requests to the services with the signed identity of their caller.
"""
