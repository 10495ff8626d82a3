"""The apps that users log in to: mini-programs, service accounts, website apps and mobile apps.

The settings define some of them, and administrators add others while the service runs.
"""
