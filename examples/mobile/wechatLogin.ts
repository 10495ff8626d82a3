// This code is for React Native and Expo, with react-native-wechat-lib and expo-crypto.
import { randomUUID } from 'expo-crypto'
import { registerApp, sendAuthRequest } from 'react-native-wechat-lib'

// Call registerApp when the app starts, with the universal link that you have also saved in WeChat's console. The link
// ends with a slash.
registerApp('wx2b3c4d5e6f7a8b9c', 'https://shop.example.com/app/')

export async function logIn() {
  const state = randomUUID()
  const answer = await sendAuthRequest('snsapi_userinfo', state) // rejects if the user cancels
  if (answer.state !== state) throw new Error('another answer')
  const login = await fetch('https://auth.example.com/v1/login', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Accept-Language': 'zh-CN' },
    body: JSON.stringify({ code: answer.code, app_id: 'wx2b3c4d5e6f7a8b9c' }),
  })
  const body = await login.json()
  if (!login.ok) throw new Error(body.title) // show this message to the user
  return body // contains access_token, refresh_token and user; store the tokens in expo-secure-store
}
