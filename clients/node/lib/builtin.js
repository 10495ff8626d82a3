// These are Node's own modules. Bundlers that make ES modules, such as esbuild, leave their `require` in place, which
// throws there.
module.exports = {
  crypto: process.getBuiltinModule('node:crypto'),
  util: process.getBuiltinModule('node:util'),
}
