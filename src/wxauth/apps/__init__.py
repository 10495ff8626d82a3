"""The apps, which come from the settings, or are added while the service runs."""
