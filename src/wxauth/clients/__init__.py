"""Clients, which are services and sites with a name and a secret."""
