"""Refused logins, for customer support."""
