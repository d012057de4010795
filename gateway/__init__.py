"""The one public door: whoever comes from outside comes through here.

Owns: API keys (their hashes), limits, and what is held in memory: the newest totals of each drive,
    the clients that watch them, and the pledges that somebody waits for.
Hears: `snapshots` (all of it) and the tail of `drive-log`, outside any group.
Says: nothing on the bus. It passes requests on to the services and vouches for their callers.
"""
