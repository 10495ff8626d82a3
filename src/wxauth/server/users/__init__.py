"""Users and their identities: account, search, bans and roles, merging; callers."""
