"""The calls to WeChat and its responses, and the parsing and verification of the messages that WeChat pushes."""
