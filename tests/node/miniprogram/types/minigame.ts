// Uses the client like a mini-game in TypeScript. This file is compiled and never run.
import { createAuth, type Platform } from '../../../../clients/miniprogram/wxauth.js'

const platform: Platform = wx
export const auth = createAuth({ baseURL: 'https://auth.example.com', platform, silent: false })
