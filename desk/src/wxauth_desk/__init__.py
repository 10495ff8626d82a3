"""PostgreSQL and a simulated WeChat for a laptop. Production uses neither."""
