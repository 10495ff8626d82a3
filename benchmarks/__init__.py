"""What a login and a guarded call cost in CPU, beside two other services in the same run."""
