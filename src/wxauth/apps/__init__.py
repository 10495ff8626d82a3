"""The apps. The settings contain some of them, and administrators add others while the service runs."""
