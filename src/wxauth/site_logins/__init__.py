"""The login to a site, by whichever door."""
