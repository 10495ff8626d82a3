"""Users and their identities: accounts, search, bans and roles, erasure and export, and the callers of requests."""
