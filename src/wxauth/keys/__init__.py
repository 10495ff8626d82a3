"""What tokens are signed with, and what of it is published."""
