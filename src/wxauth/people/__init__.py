"""Users, identities and sessions; bans and roles; merging; consents."""
