"""Outbox, inbox and consumer: events leave and arrive in the transaction of their change."""
