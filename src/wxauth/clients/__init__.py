"""Clients, the services and sites that have a name and a secret."""
