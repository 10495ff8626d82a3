// In an app made with uni-app; `onlyAuthorize` leaves the exchange to your server.
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
        else uni.showToast({ title: (data && data.title) || '登录失败，请重试', icon: 'none' }) // a 403 is an answer, too
      },
    }),
})
