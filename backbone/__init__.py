"""Infrastructure shared by the services. Outside `contracts/` it knows nothing of their domain."""
