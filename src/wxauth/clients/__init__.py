"""The clients: the services and sites that are registered, and the programs that metadata documents describe."""
