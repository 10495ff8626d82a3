// Node's own modules. Bundlers that make ES modules, such as esbuild, leave a `require` of one as it is, which throws there.
module.exports = {
  crypto: process.getBuiltinModule('node:crypto'),
  util: process.getBuiltinModule('node:util'),
}
