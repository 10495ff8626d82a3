"""Login to websites by scan (RFC 8628) and OpenID Connect."""
