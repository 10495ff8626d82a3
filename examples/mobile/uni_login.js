// This code is for an app that is built with uni-app. With `onlyAuthorize`, WeChat's code goes to wxauth, and uni-app
// does not exchange it.
uni.login({
  provider: 'weixin',
  onlyAuthorize: true,
  fail: () => uni.showToast({ title: '已取消登录', icon: 'none' }),
  success: ({ code }) =>
    uni.request({
      url: 'https://auth.example.com/v1/login',
      method: 'POST',
      data: { code, app_id: 'wx2b3c4d5e6f7a8b9c' },
      success({ statusCode, data }) {
        if (statusCode === 200) uni.setStorageSync('tokens', data)
        // uni.request also calls `success` if the service returns an error.
        else uni.showToast({ title: (data && data.title) || '登录失败，请重试', icon: 'none' })
      },
    }),
})
