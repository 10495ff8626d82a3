"""The pages that a browser shows during a login to a site, and for the logout."""
