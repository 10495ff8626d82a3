"""WeChat's session_keys: stored sealed, used to open encrypted data, checked, reset."""
