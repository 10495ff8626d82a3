App({
  /** The content that the AI has passed to pages, by the id of the page. AI 交给页面的内容，以页面 id 区分。 */
  handedOver: new Map(),

  onLaunch() {
    // Base libraries before 3.16.1 have no AI. 基础库 3.16.1 之前没有 AI。
    if (wx.onAgentHandoff) wx.onAgentHandoff(({ pageId, payload }) => this.handedOver.set(pageId, payload))
  },

  /** Returns the content for this page, only once. 返回交给这个页面的内容，只能取一次。 */
  takeHandedOver(page) {
    const id = page.getPageId && page.getPageId()
    const payload = this.handedOver.get(id)
    this.handedOver.delete(id)
    return payload
  },
})
