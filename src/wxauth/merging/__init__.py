"""The merging of users who are one person, and the splitting of an identity from a user."""
