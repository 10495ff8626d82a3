"""The calls to WeChat, its responses, and the messages that it pushes."""
