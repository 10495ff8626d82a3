// The tests that run with the compiled client. They share one process, because each process compiles the client again.
import './account.test.js'
import './login.test.js'
