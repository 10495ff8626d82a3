// As a mini-game in TypeScript does it; compiled, never run.
import { createAuth, type Platform } from '../../../../clients/miniprogram/wxauth.js'

const platform: Platform = wx
export const auth = createAuth({ baseURL: 'https://auth.example.com', platform, silent: false })
