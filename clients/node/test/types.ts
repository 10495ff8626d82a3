// This file is compiled, but never run. It shows the errors that editors report in code that uses the package.
import Router from '@koa/router'
import express from 'express'
import Fastify from 'fastify'
import { Hono } from 'hono'
import Koa from 'koa'
import { AuthError, BearerGuard, problem, type Principal } from 'wxauth-guard'
import { bearer as onExpress } from 'wxauth-guard/express'
import { bearer as onFastify } from 'wxauth-guard/fastify'
import { bearer as onHono } from 'wxauth-guard/hono'
import { bearer as onKoa } from 'wxauth-guard/koa'
import { TestIssuer } from 'wxauth-guard/testing'

const guard = new BearerGuard({ issuer: 'https://auth.example.com', audience: 'orders', now: Date.now, fetch })
const id = (user: Principal): string => user.id
const hasRole = (user: Principal): boolean => user.roles.includes('clerk') && user.scope.includes('phone')

express().get('/orders', onExpress(guard, 'clerk'), (request, response) => {
  response.json({ user: request.user && id(request.user), from: request.user?.externalId ?? null })
})

const router = new Router()
router.get('/orders', onKoa(guard, 'clerk', 'auditor'), (context) => {
  context.body = id(context.state.user)
})
new Koa().use(onKoa(guard)).use(router.routes())

Fastify().get('/orders', { onRequest: onFastify(guard) }, async (request) => id(request.user))

new Hono().get('/orders', onHono(guard, 'clerk'), (context) => context.json({ user: id(context.get('user')) }))

export async function handle(request: Request): Promise<Response> {
  try {
    return Response.json({ user: id(await guard.user(request, 'clerk')) })
  } catch (error) {
    if (!(error instanceof AuthError)) throw error
    const { status, headers, body } = problem(error, request)
    return new Response(body, { status, headers })
  }
}

const asking = new BearerGuard({ issuer: 'https://auth.example.com', websites: true, orOffline: false }).current
export const isCurrent: Promise<boolean | null> = asking.verify('').then((user) => user.isCurrent)
export const open: Promise<Principal | null> = asking.optional().user(new Request('https://orders.test'))
export const openToo: Promise<Principal | null> = guard.optional().current.user(new Request('https://orders.test'))
express().use(onExpress(asking.requires('a')), onExpress(guard.optional().current))
// @ts-expect-error a text is neither true nor false
new BearerGuard({ issuer: 'https://auth.example.com', orOffline: 'false' })
// @ts-expect-error whether a guard asks cannot be changed
asking.current = guard

const resource = new BearerGuard({ issuer: 'https://auth.example.com', audience: 'https://mcp.example.com/mcp', scopes: ['a'] })
express().get(resource.resourceMetadataPath, onExpress(resource.requires('b', 'c')), (request, response) => {
  if (request.user) resource.checkScopes(request.user, 'd')
  response.json(resource.resourceMetadata({ scopesSupported: ['a', 'b'], resourceName: '小店助手' }))
})
// @ts-expect-error requires needs at least one scope
resource.requires()

const issuer = new TestIssuer({ audience: 'orders' })
export const end: () => void = issuer.trustedBy(guard)
issuer.ban('01900000-0000-7000-8000-000000000001')
issuer.setRoles('01900000-0000-7000-8000-000000000001', ['clerk'] as const)
issuer.endSession('01900000-0000-7000-8000-000000000001')
export const endOutage: () => void = issuer.unreachable()
issuer.forget()
issuer.guard({ websites: true, orOffline: true, scopes: 'a' })
// @ts-expect-error a test issuer chooses the issuer of its guards
issuer.guard({ issuer: 'https://auth.example.com' })
export const headers: { authorization: string } = issuer.headers({ roles: ['clerk'], claims: { openid: null } })
export const ofAgent: string = issuer.token({ scope: ['a'], client_id: 'https://agent.test/client.json' })

// @ts-expect-error a role is a string
onExpress(guard, { roles: ['clerk'] })
// @ts-expect-error a guard needs an issuer
new BearerGuard({ audience: 'orders' })
export function change(user: Principal) {
  // @ts-expect-error a principal cannot be changed
  user.id = 'x'
  // @ts-expect-error the roles of a principal cannot be changed
  user.roles.push('admin')
  return hasRole(user)
}

express().use(onExpress(guard.optional()))
export const found: Promise<Principal | null> = guard.optional().user(new Request('https://orders.test'))
export const clerk: Promise<Principal> = guard.optional().requires('a').user(new Request('https://orders.test'), 'clerk')
