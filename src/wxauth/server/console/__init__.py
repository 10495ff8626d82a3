"""The console: a web page for administrators, based on `/v1/admin`, and its sessions."""
