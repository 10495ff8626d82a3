"""The services that wxauth is compared with."""
