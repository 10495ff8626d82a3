"""The half that runs: the service, its commands, and the simulated WeChat of a laptop."""
