"""The console, which is a web page for administrators that uses `/v1/admin`, and the console's sessions."""
