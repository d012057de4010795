"""Sponsors' matching pools as drives show them; payments decides what they give."""
