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

const names = MODULES.map((name) => `bearer as ${name}`)
const imported = `
import { AuthError, BearerGuard, problem } from 'wxauth-guard'
import { TestIssuer, USER_ID } from 'wxauth-guard/testing'
${MODULES.map((name, number) => `import { ${names[number]} } from 'wxauth-guard/${name}'`).join('\n')}
import { User } from 'wxauth-guard/nest'
`
const required = `
const { AuthError, BearerGuard, problem } = require('wxauth-guard')
const { TestIssuer, USER_ID } = require('wxauth-guard/testing')
${MODULES.map((name, number) => `const { ${names[number].replace(' as ', ': ')} } = require('wxauth-guard/${name}')`).join('\n')}
const { User } = require('wxauth-guard/nest')
`
const SERVICE = `
async function serve() {
  const [issuer, guard] = [new TestIssuer(), new BearerGuard({ issuer: 'https://auth.example.com' })]
  issuer.trustedBy(guard)
  const made = [${MODULES}].every((bearer) => bearer(guard, 'clerk')) && User instanceof Function
  const refusal = await guard.verify('nonsense').catch((error) => error)
  const { status } = problem(refusal, { headers: {} })
  const away = await new BearerGuard({ issuer: 'http://127.0.0.1:1', warn() {} }).verify(issuer.token()).catch((error) => error)
  const { id } = await guard.verify(issuer.token())
  console.log(made, refusal instanceof AuthError, status, away.status, id === USER_ID)
}
serve()
`

let folder // a folder in which the package is installed
let alone // a folder in which only Nest is installed, because the bundles do not contain Nest
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'wxauth-bundled-'))
  alone = await mkdtemp(join(tmpdir(), 'wxauth-alone-'))
  await mkdir(join(alone, 'node_modules'), { recursive: true })
  await mkdir(join(folder, 'node_modules'))
  await symlink(GUARD, join(folder, 'node_modules/wxauth-guard'))
  for (const name of ['@nestjs', 'reflect-metadata', 'rxjs']) {
    await symlink(join(GUARD, 'node_modules', name), join(alone, 'node_modules', name))
  }
  await writeFile(join(folder, 'imported.mjs'), imported + SERVICE)
  await writeFile(join(folder, 'required.cjs'), required + SERVICE)
})
after(() => Promise.all([folder, alone].map((each) => rm(each, { recursive: true }))))

const external = ['@nestjs/common']
const options = { bundle: true, platform: 'node', logLevel: 'error', external }
const byEsbuild = (format, more) => (from, outfile) => build({ ...options, ...more, entryPoints: [from], outfile, format })
const byRollup = async (from, file) => {
  const bundle = await rollup({ input: from, external, plugins: [nodeResolve(), commonjs()] })
  await bundle.write({ file, format: 'es' })
}

for (const [number, [bundler, from, kind, make]] of [
  ['esbuild', 'imported.mjs', 'mjs', byEsbuild('esm')],
  ['esbuild', 'imported.mjs', 'cjs', byEsbuild('cjs')],
  ['esbuild', 'required.cjs', 'cjs', byEsbuild('cjs')],
  ['esbuild, minified,', 'imported.mjs', 'mjs', byEsbuild('esm', { minify: true })],
  ['rollup', 'imported.mjs', 'mjs', byRollup],
].entries()) {
  test(`${bundler} bundles ${from} into one .${kind} file, which runs without the package`, async () => {
    const bundle = join(alone, `${number}.${kind}`)
    await make(join(folder, from), bundle)
    const { stdout } = await promisify(execFile)(process.execPath, [bundle])
    assert.equal(stdout, 'true true 401 503 true\n')
  })
}
