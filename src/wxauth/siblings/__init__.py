"""What other services may ask."""
