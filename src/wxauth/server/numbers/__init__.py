"""Hourly counts of users, sessions and logins."""
