"""The two services that wxauth is measured beside."""
