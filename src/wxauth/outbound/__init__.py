"""The requests to other servers: connections, timeouts, proxies, and the check of receivers' addresses."""
