"""WeChat's message push."""
