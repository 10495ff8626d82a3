"""The calls to WeChat, the responses, and the messages that WeChat pushes."""
