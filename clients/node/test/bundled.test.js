// These tests bundle a service and all its modules into one file, as an ES module and as CommonJS.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { before, after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import commonjs from '@rollup/plugin-commonjs'
import { nodeResolve } from '@rollup/plugin-node-resolve'
import { build } from 'esbuild'
import { rollup } from 'rollup'

const GUARD = dirname(dirname(fileURLToPath(import.meta.url)))
const MODULES = ['express', 'fastify', 'hono', 'koa', 'nest']

const IMPORTS = `
import { AuthError, BearerGuard, problem } from 'wxauth-guard'
import { TestIssuer, USER_ID } from 'wxauth-guard/testing'
${MODULES.map((name) => `import { bearer as ${name} } from 'wxauth-guard/${name}'`).join('\n')}
import { User } from 'wxauth-guard/nest'
`
const REQUIRES = `
const { AuthError, BearerGuard, problem } = require('wxauth-guard')
const { TestIssuer, USER_ID } = require('wxauth-guard/testing')
${MODULES.map((name) => `const { bearer: ${name} } = require('wxauth-guard/${name}')`).join('\n')}
const { User } = require('wxauth-guard/nest')
`
// A service that uses everything the package exports, and prints the results.
const SERVICE = `
async function serve() {
  const issuer = new TestIssuer()
  const guard = new BearerGuard({ issuer: 'https://auth.example.com' })
  issuer.trustedBy(guard)
  const areMade = [${MODULES}].every((bearer) => bearer(guard, 'clerk')) && User instanceof Function
  const refusal = await guard.verify('nonsense').catch((error) => error)
  const { status } = problem(refusal, { headers: {} })
  const guardWithoutKeys = new BearerGuard({ issuer: 'http://127.0.0.1:1', warn() {} })
  const outage = await guardWithoutKeys.verify(issuer.token()).catch((error) => error)
  const { id } = await guard.verify(issuer.token())
  console.log(areMade, refusal instanceof AuthError, status, outage.status, id === USER_ID)
}
serve()
`

let sourceFolder // a folder in which the package is installed
let targetFolder // a folder in which only Nest is installed, because the bundles do not contain Nest
before(async () => {
  sourceFolder = await mkdtemp(join(tmpdir(), 'wxauth-bundled-'))
  targetFolder = await mkdtemp(join(tmpdir(), 'wxauth-alone-'))
  await mkdir(join(targetFolder, 'node_modules'), { recursive: true })
  await mkdir(join(sourceFolder, 'node_modules'))
  await symlink(GUARD, join(sourceFolder, 'node_modules/wxauth-guard'))
  for (const name of ['@nestjs', 'reflect-metadata', 'rxjs']) {
    await symlink(join(GUARD, 'node_modules', name), join(targetFolder, 'node_modules', name))
  }
  await writeFile(join(sourceFolder, 'imported.mjs'), IMPORTS + SERVICE)
  await writeFile(join(sourceFolder, 'required.cjs'), REQUIRES + SERVICE)
})
after(() => Promise.all([sourceFolder, targetFolder].map((each) => rm(each, { recursive: true }))))

const external = ['@nestjs/common']
const options = { bundle: true, platform: 'node', logLevel: 'error', external }

/** Returns a function that bundles a file with esbuild in this format. */
function withEsbuild(format, moreOptions) {
  return (source, outfile) => build({ ...options, ...moreOptions, entryPoints: [source], outfile, format })
}

async function bundleWithRollup(source, file) {
  const bundle = await rollup({ input: source, external, plugins: [nodeResolve(), commonjs()] })
  await bundle.write({ file, format: 'es' })
}

const CASES = [
  ['esbuild', 'imported.mjs', 'mjs', withEsbuild('esm')],
  ['esbuild', 'imported.mjs', 'cjs', withEsbuild('cjs')],
  ['esbuild', 'required.cjs', 'cjs', withEsbuild('cjs')],
  ['esbuild, minified,', 'imported.mjs', 'mjs', withEsbuild('esm', { minify: true })],
  ['rollup', 'imported.mjs', 'mjs', bundleWithRollup],
]
for (const [number, [bundler, source, extension, bundleFile]] of CASES.entries()) {
  test(`${bundler} bundles ${source} into one .${extension} file, which runs without the package`, async () => {
    const bundle = join(targetFolder, `${number}.${extension}`)
    await bundleFile(join(sourceFolder, source), bundle)
    const { stdout } = await promisify(execFile)(process.execPath, [bundle])
    assert.equal(stdout, 'true true 401 503 true\n')
  })
}
