"""Users, identities and sessions: who somebody is, how they stand, where they are logged in."""
