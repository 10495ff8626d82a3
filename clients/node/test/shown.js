// This module starts the services in README.md, with exactly the code that the README contains.
import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { serve as serveHono } from '@hono/node-server'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
export const RUN = here('.run')
const readme = readFileSync(here('../README.md'), 'utf8')
export const blocks = [...readme.matchAll(/^```([jt]s)\n(.*?)^```$/gms)].map(([, language, code]) => ({ language, code }))

const shown = (framework) => blocks.find(({ code }) => code.includes(`wxauth-guard/${framework}'`))
const plain = blocks.find(({ code }) => code.includes("from 'node:http'"))

/**
 * Functions that start a service, and return its guard and its URL. They pass the functions that stop the service to
 * `end`.
 */
export const frameworks = {
  'Express 5': (end) => servedByNode(shown('express').code, 'express', end),
  'Express 4': (end) => servedByNode(shown('express').code.replace("from 'express'", "from 'express-4'"), 'express-4', end),
  Koa: (end) => servedByNode(shown('koa').code, 'koa', end),
  'no framework': (end) => servedByNode(plain.code, 'plain', end),
  async Fastify(end) {
    const { app, guard } = await imported(shown('fastify').code, 'fastify')
    end(() => app.close())
    return { guard, url: await app.listen({ host: '127.0.0.1', port: 0 }) }
  },
  async Hono(end) {
    const { app, guard } = await imported(shown('hono').code, 'hono')
    const server = serveHono({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 })
    return { guard, url: await listening(server, end) }
  },
  'Nest on Express': async (end) => servedByNest(end),
  'Nest on Fastify': async (end) => {
    const { FastifyAdapter } = await import('@nestjs/platform-fastify')
    return servedByNest(end, new FastifyAdapter())
  },
}

async function servedByNode(code, name, end) {
  const { app, guard } = await imported(code, name)
  return { guard, url: await listening(app.listen(0, '127.0.0.1'), end) }
}

async function servedByNest(end, ...adapter) {
  await import('reflect-metadata')
  const { NestFactory } = await import('@nestjs/core')
  const { App, guard } = await compiledNest()
  const app = await NestFactory.create(App, ...adapter, { logger: ['error', 'warn'] })
  end(() => app.close())
  await app.listen(0, '127.0.0.1')
  return { guard, url: `http://127.0.0.1:${app.getHttpServer().address().port}` }
}

let nest
function compiledNest() {
  nest ??= compile(written(shown('nest').code, 'nest.ts'))
  return nest
}

async function compile(source) {
  const options = ['--experimentalDecorators', '--emitDecoratorMetadata', '--isolatedModules', '--skipLibCheck']
  const command = [here('../node_modules/typescript/bin/tsc'), '--module', 'nodenext', '--strict', '--types', 'node']
  await promisify(execFile)(process.execPath, [...command, ...options, source], { cwd: here('..') })
  return import(pathToFileURL(source.replace(/ts$/, 'js')))
}

async function listening(server, end) {
  end(() => server.closeAllConnections?.())
  end(() => server.close())
  if (!server.listening) await new Promise((resolve) => server.once('listening', resolve))
  return `http://127.0.0.1:${server.address().port}`
}

const imported = (code, name) => import(pathToFileURL(written(code, `${name}.js`)))

export function written(code, name) {
  mkdirSync(RUN, { recursive: true })
  writeFileSync(`${RUN}/${name}`, code)
  return `${RUN}/${name}`
}
