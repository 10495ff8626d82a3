"""The calls to WeChat, WeChat's responses, and the messages that WeChat pushes."""
