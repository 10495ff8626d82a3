import { failed, said } from '../answers.js'
import { TEAS, teaOf } from '../teas.js'

export async function showTea({ tea }) {
  const payload = teaOf(tea)
  if (!payload) return failed(`没有这种茶，可选：${Object.keys(TEAS).join('、')}。`)
  const handoff = { query: { tea: tea }, payload, card: { title: payload.name } }
  return said('已准备好页面，请引导用户点击卡片。', { structuredContent: { tea: tea }, handoff })
}
