// In React Native and Expo, with react-native-wechat-lib and expo-crypto.
import { randomUUID } from 'expo-crypto'
import { registerApp, sendAuthRequest } from 'react-native-wechat-lib'

// At the start of the app, with the link that WeChat's console has too: it ends in a slash.
registerApp('wx2b3c4d5e6f7a8b9c', 'https://shop.example.com/app/')

export async function logIn() {
  const state = randomUUID()
  const answer = await sendAuthRequest('snsapi_userinfo', state) // rejects if the person cancels: show nothing
  if (answer.state !== state) throw new Error('another answer')
  const login = await fetch('https://auth.example.com/v1/login', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Accept-Language': 'zh-CN' },
    body: JSON.stringify({ code: answer.code, app_id: 'wx2b3c4d5e6f7a8b9c' }),
  })
  const body = await login.json()
  if (!login.ok) throw new Error(body.title) // for the user
  return body // access_token, refresh_token (into expo-secure-store), user
}
