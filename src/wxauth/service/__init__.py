"""Assembly of the parts: the app, the server and its workers, and the background tasks."""
