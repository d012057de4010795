"""A drive replayed against the public door, with a Stripe sandbox: demo, load test and proof.

Knows the installation from outside only: the public door, the sandbox's own door, and at the very
end each owner's books. `python -m rehearsal demo` is what `make demo` runs.
"""
