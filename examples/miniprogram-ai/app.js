App({
  /** What the AI has handed over, by the page's id. AI 交给页面的内容，以页面 id 区分。 */
  handedOver: new Map(),

  onLaunch() {
    // Before base library 3.16.1 there is no AI. 基础库 3.16.1 之前没有 AI。
    if (wx.onAgentHandoff) wx.onAgentHandoff(({ pageId, payload }) => this.handedOver.set(pageId, payload))
  },

  /** Each page takes what is its own, once. 每个页面只取自己的内容，只取一次。 */
  takeHandedOver(page) {
    const id = page.getPageId && page.getPageId()
    const payload = this.handedOver.get(id)
    this.handedOver.delete(id)
    return payload
  },
})
