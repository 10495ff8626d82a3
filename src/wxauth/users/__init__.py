"""Users and their identities: account, search, bans and roles, erasure, export; callers."""
