"""What is taken along: a person's own data."""
