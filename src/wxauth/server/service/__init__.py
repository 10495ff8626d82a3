"""The parts put together: the app, the server and its workers, and the work that runs by itself."""
