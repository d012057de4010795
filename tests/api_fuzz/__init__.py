"""Schemathesis against the embedded run: `make api-fuzz`."""
