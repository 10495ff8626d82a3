"""The services with which wxauth is compared."""
