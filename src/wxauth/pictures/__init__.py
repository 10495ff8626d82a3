"""Pictures that users upload."""
