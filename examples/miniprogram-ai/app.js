App({
  /** What the AI has handed to a page, by the page's id. AI 交给页面的内容。 */
  handedOver: {},

  onLaunch() {
    // Before base library 3.16.1 there is no AI. 基础库 3.16.1 之前没有 AI。
    if (wx.onAgentHandoff) wx.onAgentHandoff(({ path, payload }) => (this.handedOver[path] = payload))
  },
})
