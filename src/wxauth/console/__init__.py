"""The console: a web page for administrators over `/v1/admin`, and the sessions that it has."""
