"""The console and its sessions. The console is a web page for administrators and support staff."""
