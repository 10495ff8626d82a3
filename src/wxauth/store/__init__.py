"""All SQL: tables, and functions named for the question they answer."""
