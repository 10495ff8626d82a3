"""Refused logins, for who answers customers."""
