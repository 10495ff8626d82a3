"""The event feed, webhooks, and webhook deliveries."""
