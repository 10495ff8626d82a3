"""Routes for sibling services: verify, introspect, user lookups, WeChat tokens."""
