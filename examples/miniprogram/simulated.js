// For development alone: codes from the simulated WeChat of scripts/dev, which knows none of those that the developer
// tools give. 仅供开发：从 scripts/dev 的模拟微信取 code，它不认识开发者工具给出的 code。

/** A platform for createAuth: `wx`, but for its login. */
export function simulatedPlatform({ url, person }) {
  return {
    login: ({ success, fail }) => void codeFrom(`${url}/codes`, person).then((code) => success({ code }), fail),
    request: (options) => wx.request(options),
    uploadFile: (options) => wx.uploadFile(options),
    getStorageSync: (key) => wx.getStorageSync(key),
    setStorageSync: (key, value) => wx.setStorageSync(key, value),
    removeStorageSync: (key) => wx.removeStorageSync(key),
    getEnterOptionsSync: () => wx.getEnterOptionsSync(),
  }
}

/** What a tap on the phone button gives. */
export const simulatedPhoneCode = ({ url, person }) => codeFrom(`${url}/phone-codes`, person)

function codeFrom(url, person) {
  return new Promise((resolve, reject) => {
    wx.request({
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
