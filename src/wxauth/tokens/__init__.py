"""Access tokens: what they say, how they are signed, how they are checked (RFC 9068, RFC 8725)."""
