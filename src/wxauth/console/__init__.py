"""The console, a web page for administrators on top of `/v1/admin`, and its sessions."""
