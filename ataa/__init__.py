"""The operators' command: `python -m ataa` (docs/operations/ataa-command.md).

It asks the services' internal routes and imports none of them.
"""
