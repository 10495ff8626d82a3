// What is run with the compiled client, in one process because each compiles it anew.
import './account.test.js'
import './login.test.js'
