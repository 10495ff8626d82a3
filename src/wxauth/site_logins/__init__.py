"""The login to a site, through any of the doors (ways to log in)."""
