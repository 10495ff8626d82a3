// This module starts the services in README.md, with exactly the code that the README contains, or with any guard.
import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { serve as serveHono } from '@hono/node-server'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
export const RUN = here('.run') // the folder in which the services are written and run
const readme = readFileSync(here('../README.md'), 'utf8')
export const blocks = [...readme.matchAll(/^```([jt]s)\n(.*?)^```$/gms)].map(([, language, code]) => ({ language, code }))

const blockFor = (framework) => blocks.find(({ code }) => code.includes(`wxauth-guard/${framework}'`))
const blockWithoutFramework = blocks.find(({ code }) => code.includes('createServer'))

const onExpress5 = blockFor('express').code
const onExpress4 = onExpress5.replace("from 'express'", "from 'express-4'")

/** The guard of the services that are started with `withChosenGuard`. A test sets `guard`. */
export const chosen = { guard: null, user: (...args) => chosen.guard.user(...args) }
globalThis.chosen = chosen

/**
 * Functions that start a service, and return its guard and its URL. They call `onEnd` with each function that must run
 * to stop the service.
 */
export const frameworks = frameworksOf('', (code) => code)
export const frameworksWithChosenGuard = frameworksOf('-chosen', (code, language) =>
  code.replace(/new BearerGuard\(\{[^}]+\}\)/, language === 'ts' ? '(globalThis as any).chosen' : 'globalThis.chosen'),
)

/** Returns such functions for the services whose code `edit` returns. `suffix` is part of the names of their files. */
function frameworksOf(suffix, edit) {
  const importCode = (code, name) => import(pathToFileURL(writeCode(edit(code, 'js'), `${name}${suffix}.js`)))

  async function serveOnNode(code, name, onEnd) {
    const { app, guard } = await importCode(code, name)
    return { guard, url: await urlWhenListening(app.listen(0, '127.0.0.1'), onEnd) }
  }

  let nestModule
  function importNest() {
    nestModule ??= compileAndImport(writeCode(edit(blockFor('nest').code, 'ts'), `nest${suffix}.ts`))
    return nestModule
  }

  async function serveNest(onEnd, ...adapter) {
    await import('reflect-metadata')
    const { NestFactory } = await import('@nestjs/core')
    const { App, guard } = await importNest()
    const app = await NestFactory.create(App, ...adapter, { logger: ['error', 'warn'] })
    onEnd(() => app.close())
    await app.listen(0, '127.0.0.1')
    return { guard, url: `http://127.0.0.1:${app.getHttpServer().address().port}` }
  }

  return {
    'Express 5': (onEnd) => serveOnNode(onExpress5, 'express', onEnd),
    'Express 4': (onEnd) => serveOnNode(onExpress4, 'express-4', onEnd),
    Koa: (onEnd) => serveOnNode(blockFor('koa').code, 'koa', onEnd),
    'no framework': (onEnd) => serveOnNode(blockWithoutFramework.code, 'plain', onEnd),
    async Fastify(onEnd) {
      const { app, guard } = await importCode(blockFor('fastify').code, 'fastify')
      onEnd(() => app.close())
      return { guard, url: await app.listen({ host: '127.0.0.1', port: 0 }) }
    },
    async Hono(onEnd) {
      const { app, guard } = await importCode(blockFor('hono').code, 'hono')
      const server = serveHono({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 })
      return { guard, url: await urlWhenListening(server, onEnd) }
    },
    'Nest on Express': async (onEnd) => serveNest(onEnd),
    'Nest on Fastify': async (onEnd) => {
      const { FastifyAdapter } = await import('@nestjs/platform-fastify')
      return serveNest(onEnd, new FastifyAdapter())
    },
  }
}

async function compileAndImport(source) {
  const options = ['--experimentalDecorators', '--emitDecoratorMetadata', '--isolatedModules', '--skipLibCheck']
  const command = [here('../node_modules/typescript/bin/tsc'), '--module', 'nodenext', '--strict', '--types', 'node']
  await promisify(execFile)(process.execPath, [...command, ...options, source], { cwd: here('..') })
  return import(pathToFileURL(source.replace(/ts$/, 'js')))
}

async function urlWhenListening(server, onEnd) {
  onEnd(() => server.closeAllConnections?.())
  onEnd(() => server.close())
  if (!server.listening) await new Promise((resolve) => server.once('listening', resolve))
  return `http://127.0.0.1:${server.address().port}`
}

/** Writes code to a file with this name, and returns the file's path. */
export function writeCode(code, name) {
  mkdirSync(RUN, { recursive: true })
  writeFileSync(`${RUN}/${name}`, code)
  return `${RUN}/${name}`
}
