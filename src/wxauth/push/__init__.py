"""The handling of the messages that WeChat pushes: the route, withdrawals, and the forwarding to other services."""
