"""The parts put together: the app, the server, what goes by itself."""
