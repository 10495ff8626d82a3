// Uses the client like a uni-app. This file is compiled and never run.
import { createAuth, type Platform } from '../../../../clients/miniprogram/wxauth.js'

const platform: Platform = uni
export const auth = createAuth({ baseURL: 'https://auth.example.com', platform })

export const request = <Data>(options: UniApp.RequestOptions) => auth.request<Data>(options)
