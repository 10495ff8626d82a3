import { failed, said } from '../answers.js'
import { TEAS } from '../teas.js'

export async function showTea({ tea }) {
  if (!TEAS[tea]) return failed(`没有这种茶，可选：${Object.keys(TEAS).join('、')}。`)
  const handoff = { query: { tea: tea }, payload: TEAS[tea], card: { title: TEAS[tea].name } }
  return said('已准备好页面，请引导用户点击卡片。', { structuredContent: { tea: tea }, handoff })
}
