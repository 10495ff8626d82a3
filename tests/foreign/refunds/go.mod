module example.com/refunds

go 1.22

require github.com/wxauth/wxauth/clients/go v0.1.0

replace github.com/wxauth/wxauth/clients/go => ../../../clients/go
