"""The apps: those of the settings, and apps that are added while the service runs."""
