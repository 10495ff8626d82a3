"""The phone numbers of users."""
