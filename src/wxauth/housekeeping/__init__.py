"""The background work that deletes old data, for example ended sessions and expired logins."""
