"""Publishes drives' live frames to nchan, for streams beyond what the gateways carry: `python -m edge`.

It reads the gateways' public API and runs beside nginx (docs/operations/edge.md).
"""
