"""Users and their identities: account, search, bans and roles, merging; who calls."""
