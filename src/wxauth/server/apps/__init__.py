"""The mini-programs: apps of the settings, and apps that are added while the service runs."""
