"""WeChat's risk rank for new users, and what the risk policy does with it."""
