// Gets codes from the simulated WeChat of scripts/dev, because it doesn't know the codes of the developer tools. This
// is only for development. 仅供开发：从 scripts/dev 的模拟微信取 code，因为它不认识开发者工具给出的 code。

/** Returns a platform for createAuth that behaves like `uni`, except for its `login`. */
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

/** Returns the code that a tap on the phone button returns. */
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
