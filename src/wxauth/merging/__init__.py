"""Users who are one person are merged, and an identity of another person is taken out of a user."""
