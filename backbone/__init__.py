"""Infrastructure shared by the services. Outside `contracts/` it knows nothing of their domain."""

from backbone.optional_imports import without

with without("rich"):  # 8 MB with its lexers; our log formats need none of it
    import structlog  # noqa: F401
