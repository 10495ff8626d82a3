"""The encrypted storage of WeChat's session_keys, and their use to decrypt data and to sign data."""
