"""A laptop's Postgres and a laptop's WeChat. Nothing of it is in the production path."""
