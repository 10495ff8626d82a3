"""The mini-programs: those of the settings, and those that are added while the service runs."""
