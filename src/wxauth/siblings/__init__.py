"""The routes for siblings (services that verify our tokens) about tokens, users, and WeChat tokens."""
