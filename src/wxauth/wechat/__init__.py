"""All that is said to WeChat."""
