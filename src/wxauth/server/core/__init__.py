"""What every room stands on: settings, time, logs, sealing, the database, the names of the parts. It has no stories."""
