"""Sessions: one login on one device each."""
