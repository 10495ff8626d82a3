// Node's own modules, without `require`. Bundlers that make ES modules, such as esbuild, leave the `require` of such a
// module in place, and an ES module has no `require`.
module.exports = {
  crypto: process.getBuiltinModule('node:crypto'),
  dns: process.getBuiltinModule('node:dns'),
  timers: process.getBuiltinModule('node:timers'),
  util: process.getBuiltinModule('node:util'),
}
