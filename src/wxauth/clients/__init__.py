"""Clients: the services and sites that are registered, and programs that a document describes."""
