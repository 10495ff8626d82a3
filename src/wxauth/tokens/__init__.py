"""Access tokens: claims, signing and verification (RFC 9068, RFC 8725)."""
