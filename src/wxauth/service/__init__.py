"""Puts the parts together: the app, the server and its workers, and background tasks."""
