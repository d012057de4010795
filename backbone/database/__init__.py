"""One service's database: transactions on PostgreSQL or SQLite, leader locks, transient errors."""

from backbone.optional_imports import without

with without("pygments"):  # Mako's error pages would be coloured with it
    import alembic.command  # noqa: F401
