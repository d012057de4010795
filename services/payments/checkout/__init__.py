"""Opening checkouts: the ticket queue, attempts of unknown outcome, expiry of cancelled ones, pruning."""
