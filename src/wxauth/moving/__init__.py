"""What is taken along: users who move in and out, a person's own data."""
