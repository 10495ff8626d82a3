"""The keys that sign tokens: stored, rotated, and published."""
