"""WeChat's session_keys: storing them encrypted, and using them to decrypt data and to sign."""
