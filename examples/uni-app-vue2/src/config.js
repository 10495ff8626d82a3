// The addresses of the services. 各服务的地址。
export const baseURL = 'http://127.0.0.1:8000'
export const ordersURL = 'http://127.0.0.1:8002'

// The user whom the simulated WeChat of scripts/dev logs in. This is only for development. If you use your own appid,
// set it to null. 仅供开发，与 scripts/dev 配合：以谁的身份登录模拟微信。换成自己的 appid 后，请改为 null。
export const simulated = { url: 'http://127.0.0.1:8001', person: 'alice' }
