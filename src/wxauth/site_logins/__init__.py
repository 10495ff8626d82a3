"""The login to a site, through any of the doors (the ways to log in)."""
