"""The keys that sign tokens: their storage, rotation and publication."""
