"""What a login, a guarded call and a refresh cost in CPU, beside other services in the same run."""
