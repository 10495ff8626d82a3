// Make the mini-program around this page answer the site's request. WeChat adds this bridge to every web-view.
const { url, codeUrl } = JSON.parse(document.querySelector('main').dataset.page)
const patienceMs = 3000 // without a bridge after this time, the page with the QR code opens

const withoutBridge = setTimeout(() => location.replace(codeUrl), patienceMs)

function open() {
  clearTimeout(withoutBridge)
  // Equivalent to `wx.miniProgram.redirectTo` of WeChat's JS-SDK.
  window.WeixinJSBridge.invoke('invokeMiniProgramAPI', { name: 'redirectTo', arg: { url } }, () => {})
}

document.querySelector('.open').addEventListener('click', () => window.WeixinJSBridge && open())
if (window.WeixinJSBridge) open()
else document.addEventListener('WeixinJSBridgeReady', open, { once: true })
