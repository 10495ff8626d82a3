"""The sessions of users. A session is one login on one device."""
