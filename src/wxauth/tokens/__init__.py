"""Access tokens: their claims, and how they are signed and checked (RFC 9068, RFC 8725)."""
