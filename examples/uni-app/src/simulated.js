// For development alone: codes from the simulated WeChat of scripts/dev, which knows none of those that the developer
// tools give. 仅供开发：从 scripts/dev 的模拟微信取 code，它不认识开发者工具给出的 code。

/** A platform for createAuth: `uni`, but for its login. */
export function simulatedPlatform({ url, person }) {
  return {
    login: ({ success, fail }) => void codeFrom(`${url}/codes`, person).then((code) => success({ code }), fail),
    request: (options) => uni.request(options),
    uploadFile: (options) => uni.uploadFile(options),
    getStorageSync: (key) => uni.getStorageSync(key),
    setStorageSync: (key, value) => uni.setStorageSync(key, value),
    removeStorageSync: (key) => uni.removeStorageSync(key),
    getEnterOptionsSync: () => uni.getEnterOptionsSync(),
  }
}

/** What a tap on the phone button gives. */
export const simulatedPhoneCode = ({ url, person }) => codeFrom(`${url}/phone-codes`, person)

function codeFrom(url, person) {
  return new Promise((resolve, reject) => {
    uni.request({
      url,
      method: 'POST',
      data: { person },
      success({ data }) {
        const { code } = Object(data)
        if (code) resolve(code)
        else reject({ errMsg: `simulated WeChat: ${JSON.stringify(data)}` })
      },
      fail: reject,
    })
  })
}
