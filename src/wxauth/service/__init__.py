"""The assembly of the service: the app, the server and its workers, and the background tasks."""
