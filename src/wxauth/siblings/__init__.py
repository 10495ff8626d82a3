"""The routes for siblings (services that verify wxauth's tokens) about tokens, users, and WeChat tokens."""
