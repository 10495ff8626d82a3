"""The base of every package: settings, time, logs, sealing, database, audit trail. It has no use cases of its own."""
