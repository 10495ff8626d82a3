"""Users and their identities: account, search, bans and roles, merging, erasure, export; callers."""
