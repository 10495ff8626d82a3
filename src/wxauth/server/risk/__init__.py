"""WeChat's opinion of newcomers, and what the risk policy makes of it."""
