"""Names that look unused and are not: query parameters that only check what they are given."""

window = None
