"""The settings, the types of their values, and the rules that these values share with requests."""
