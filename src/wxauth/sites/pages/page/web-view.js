// Makes the mini-program around this page open its page for the site's request. WeChat adds the object WeixinJSBridge,
// with which a page calls the mini-program, to every web-view.
const BRIDGE_TIMEOUT_MS = 3000

const { url, codeUrl } = JSON.parse(document.querySelector('main').dataset.page)
const showCodeWithoutBridge = setTimeout(() => location.replace(codeUrl), BRIDGE_TIMEOUT_MS)

/** Open the mini-program's page, like `wx.miniProgram.redirectTo` of WeChat's JS-SDK. Requires the bridge. */
function open() {
  clearTimeout(showCodeWithoutBridge)
  window.WeixinJSBridge.invoke('invokeMiniProgramAPI', { name: 'redirectTo', arg: { url } }, () => {})
}

document.querySelector('.open').addEventListener('click', () => {
  if (window.WeixinJSBridge) open()
})
if (window.WeixinJSBridge) open()
else document.addEventListener('WeixinJSBridgeReady', open, { once: true })
