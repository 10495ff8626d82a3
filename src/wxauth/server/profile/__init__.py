"""Nicknames and picture URLs that users set, and the check of nicknames."""
