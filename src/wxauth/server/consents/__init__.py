"""Consents: what a person agreed to, and withdrew."""
