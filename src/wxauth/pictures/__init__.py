"""The pictures that users upload."""
