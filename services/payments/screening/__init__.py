"""Card testing: the tries of cards, a breaker that opens under attack, and who is refused or held then."""
