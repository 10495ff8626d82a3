"""The background work that deletes sessions, logins and other data that have ended or expired."""
