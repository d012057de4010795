"""HTTP on bare ASGI: requests and responses, routing, CORS, conditional requests and negotiation."""
