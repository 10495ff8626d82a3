"""The login to a site: request, question to the user, approval, code, redemption, tokens, log-out."""
