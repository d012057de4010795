"""A drive's log as a Merkle tree that others can verify (docs/proof.md).

The tree of a drive and epoch is a pure function of the rows of `drive_log`. Its hashes are stored in tiles of
256, added after the rows were committed; repeats and replicas write the same bytes.
"""
