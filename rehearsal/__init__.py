"""A drive replayed through the public API, with a Stripe sandbox: demo, load test and proof.

It sees the installation from outside only: the public API, the sandbox's controls, and at the end the
books of each service. `make demo` runs `python -m rehearsal demo`.
"""
