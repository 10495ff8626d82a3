"""The services that wxauth is measured beside."""
