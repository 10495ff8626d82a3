"""The database, clock, ids, logs, metrics, encryption, audit trail and background work of all packages."""
