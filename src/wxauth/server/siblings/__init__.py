"""Routes for sibling services: verify, introspect, look users up, WeChat tokens."""
