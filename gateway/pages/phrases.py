"""The form of the pages' texts in one language."""

from collections.abc import Mapping

Phrase = str | Mapping[str, str]
"""A sentence with {placeholders}, or a sentence for each plural category (CLDR), chosen by `n`."""

Translations = Mapping[str, Phrase]
"""key → text."""
