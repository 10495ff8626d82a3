"""The handling of the messages that WeChat pushes: the route, the erasure of withdrawn data, and forwarding."""
