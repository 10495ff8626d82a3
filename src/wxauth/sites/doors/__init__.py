"""The doors: the ways to log in to a site, and the phone's part in them."""
