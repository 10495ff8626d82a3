// Loads the client as mini-programs use it: the original, or as older developer tools compile it for phones that know
// only ES5.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import vm from 'node:vm'

const CLIENT = new URL('../../../clients/miniprogram/wxauth.js', import.meta.url)
const require = createRequire(import.meta.url)
const COMPILERS = {
  /** Compiles with Babel 6, whose preset `latest` is preset-env for all targets. */
  babel: (source) => require('babel-standalone').transform(source, { presets: ['latest', 'stage-3'] }).code,
  /** Compiles with the last version of TypeScript that knows ES5. */
  tsc: (source) => {
    const { ModuleKind, ScriptTarget, transpileModule } = require('typescript-5')
    const compilerOptions = { allowJs: true, target: ScriptTarget.ES5, module: ModuleKind.CommonJS }
    return transpileModule(source, { compilerOptions }).outputText
  },
}

/** Return the exports of the client, from the file itself or from a compiler's output. */
export async function built(compiler) {
  if (!compiler) return import(CLIENT)
  globalThis.regeneratorRuntime = require('regenerator-runtime')
  const compiled = COMPILERS[compiler](readFileSync(CLIENT, 'utf8'))
  return vm.runInThisContext(`((exports) => {${compiled}\nreturn exports})`)({})
}
