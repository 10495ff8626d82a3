"""What a browser sees of a login to a site."""
