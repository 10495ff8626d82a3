"""HTTP for all packages: receiving requests, and sending responses."""
