// This test runs the tests of a CommonJS service in Jest, with the default configuration.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const GUARD = dirname(dirname(fileURLToPath(import.meta.url)))
const JEST = join(dirname(createRequire(import.meta.url).resolve('jest/package.json')), 'bin/jest.js')

test('Jest loads the guard from CommonJS', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'wxauth-jest-'))
  t.after(() => rm(folder, { recursive: true }))
  const installed = join(folder, 'node_modules/wxauth-guard')
  await mkdir(installed, { recursive: true })
  for (const name of ['lib', 'package.json']) await cp(join(GUARD, name), join(installed, name), { recursive: true })
  await writeFile(join(folder, 'package.json'), '{}')
  await writeFile(
    join(folder, 'orders.test.js'),
    `const { BearerGuard } = require('wxauth-guard')
    const { bearer } = require('wxauth-guard/express')
    const { TestIssuer, USER_ID } = require('wxauth-guard/testing')
    test('a user is admitted', async () => {
      const issuer = new TestIssuer()
      const guard = new BearerGuard({ issuer: 'https://auth.example.com' })
      issuer.trustedBy(guard)
      expect((await guard.verify(issuer.token())).id).toBe(USER_ID)
      await expect(guard.verify('nonsense')).rejects.toThrow('token')
      expect(bearer(guard)).toBeInstanceOf(Function)
    })`,
  )
  const { stderr } = await promisify(execFile)(process.execPath, [JEST], { cwd: folder })
  assert.match(stderr, /Tests: +1 passed/)
})
