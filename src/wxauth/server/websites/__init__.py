"""Login to websites: by scan (RFC 8628), and by OpenID Connect."""
