"""All calls to WeChat, and WeChat's answers and pushed messages."""
