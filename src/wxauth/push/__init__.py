"""The messages that WeChat pushes."""
