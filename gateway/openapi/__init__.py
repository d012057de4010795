"""The OpenAPI document of the public API, and what it is made of."""
