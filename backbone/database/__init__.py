"""One service's database: transactions on PostgreSQL or SQLite, leader locks, transient errors."""
