// These tests check the contents of the package and its types.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { blocks, writeCode } from './readme.js'

const run = promisify(execFile)
const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const { name, version, exports } = JSON.parse(readFileSync(here('../package.json')))
const modules = Object.entries(exports)
  .filter(([path]) => path !== './package.json')
  .map(([path, files]) => [name + path.slice(1), files])

test('the package contains only its modules, their types, the licence and both READMEs', async () => {
  const { stdout } = await run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: here('..') })
  const packed = JSON.parse(stdout)
  const { files, filename } = Array.isArray(packed) ? packed[0] : packed[name] // the form depends on the version of npm
  const paths = files.map(({ path }) => path)
  assert.equal(filename, `wxauth-guard-${version}.tgz`)
  const exported = modules.flatMap(([, filesOfModule]) => Object.values(filesOfModule))
  for (const file of exported) assert.ok(paths.includes(file.slice('./'.length)), file)
  const others = paths.filter((path) => !/^lib\/[a-z]+\.(m?js|d\.ts)$/.test(path))
  assert.deepEqual(others.sort(), ['LICENSE', 'README.md', 'README.zh-CN.md', 'lib/package.json', 'package.json'])
})

for (const [path, { types }] of modules) {
  test(`${path} exports the names in its types, with import and with require`, async () => {
    const declared = readFileSync(here(`../${types}`), 'utf8').matchAll(/^export (?:class|function|const) (\w+)/gm)
    const names = [...declared].map(([, name]) => name).sort()
    const imported = await import(path)
    const required = createRequire(import.meta.url)(path)
    for (const exported of [imported, required]) assert.deepEqual(Object.keys(exported).sort(), names)
    if (!path.endsWith('/nest')) for (const name of names) assert.equal(imported[name], required[name])
  })
}

test('the types are compatible with the frameworks', async () => {
  const options = ['--noEmit', '--module', 'nodenext', '--strict', '--exactOptionalPropertyTypes', '--types', 'node']
  const command = [here('../node_modules/typescript/bin/tsc'), ...options, '--skipLibCheck', here('types.ts')]
  await run(process.execPath, command, { cwd: here('..') }).catch(({ stdout }) => assert.fail(stdout))
})

test("the README's test passes with the README's service", async () => {
  writeCode(blocks[0].code, 'app.js')
  const env = { ...process.env, NODE_TEST_CONTEXT: undefined }
  const file = writeCode(blocks.at(-1).code, 'app.test.js')
  const { stdout } = await run(process.execPath, ['--test', '--test-reporter=spec', file], { env })
  assert.match(stdout, /pass 1\n/)
})

test("after the README's installation, npm ci and npm install keep the package", async () => {
  const folder = await mkdtemp(join(tmpdir(), 'wxauth-guard-'))
  const env = { ...process.env, npm_config_prefer_offline: 'true', npm_config_fetch_retries: '1' }
  const runShell = (command) => run('sh', ['-ec', command], { cwd: folder, env })
  const [, installation] = /^```sh\n(npm init[^]*?)^```$/m.exec(readFileSync(here('../README.md'), 'utf8'))
  const useGuard = `node -e "import('wxauth-guard').then(({ BearerGuard }) => console.log(BearerGuard.name))"`
  try {
    await runShell(installation.replace('../wxauth/clients/node', here('..')).replace(' express', ''))
    for (const again of ['npm install', 'rm -r node_modules && npm ci']) {
      assert.equal((await runShell(`${again} >&2; ${useGuard}`)).stdout, 'BearerGuard\n')
    }
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('both READMEs have the same code, headings and table rows', () => {
  const code = (file) => readFileSync(here(file), 'utf8').match(/^```\w+\n.*?^```$|^#+ |^\| `\w+` \| \d+/gms)
  assert.deepEqual(code('../README.zh-CN.md'), code('../README.md'))
})
