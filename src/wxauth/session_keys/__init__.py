"""WeChat's session_keys, which are stored encrypted, and used to decrypt data and to sign."""
