"""The event feed, webhooks, and the deliveries of events to webhooks and of logout tokens to sites."""
