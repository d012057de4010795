"""Tests of the moderation of donors' texts."""
