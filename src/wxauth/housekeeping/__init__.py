"""The background work that deletes what has ended or expired."""
