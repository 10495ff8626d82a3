"""A service of the operator's is asked who may sign up."""
