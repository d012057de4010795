"""Moderation of donors' names and messages: what is held for a person, and what moderators decided."""
