"""Logging in to websites by scanning a code with the phone (RFC 8628, OpenID Connect)."""
