"""The handling of the messages that WeChat pushes: the route, withdrawals, and forwarding to handlers."""
