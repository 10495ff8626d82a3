"""The feed of events, webhooks, and their deliveries."""
