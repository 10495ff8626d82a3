"""WeChat's session_keys: their encrypted storage, and their use to decrypt data and to sign data."""
