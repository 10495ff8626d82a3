"""The requests to other servers: connections, timeouts, proxies, and receivers that must be public."""
