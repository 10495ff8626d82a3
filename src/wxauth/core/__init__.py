"""What every room stands on, and no story: settings, time, logs, sealing, the database, the names of the parts."""
