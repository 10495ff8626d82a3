// The section about the keys that sign access tokens and id_tokens.

import { get, post } from './api.js'
import { h } from './dom.js'
import { actionButton, code, menu, confirmAction, confirmingButtonFor, field, tag, time, toast } from './parts.js'
import { searchedList } from './search.js'
import { text } from './texts.js'

export function showKeys(main, { query }) {
  const changeKeys = async (path, values) => {
    await post(path, values)
    toast(text('done'))
    reload()
  }
  const rotate = () => {
    const fields = [field({ name: 'at_once', label: text('signSoon'), hint: text('signSoonHint'), type: 'checkbox' })]
    const submit = (values) => changeKeys('/keys/rotate', values)
    confirmAction(text('rotateTitle'), text('sureRotate'), 'rotate', submit, fields)
  }
  const withdraw = (kid, state) => {
    const kind = state === 'signing' ? 'small danger' : 'small'
    const path = `/keys/${encodeURIComponent(kid)}/withdraw`
    return confirmingButtonFor('withdraw', kid, 'sureWithdraw', () => changeKeys(path), { kind })
  }
  const reload = searchedList(main, 'keys', query, [actionButton('rotate', rotate)], {
    columns: ['kid', 'state', 'signsFrom', 'publishedUntil', 'acts'],
    ask: async () => {
      const { items, id_token_keys, ...page } = await get('/keys')
      return { ...page, items: [...items, ...id_token_keys] }
    },
    cells: ({ kid, alg, state, signs_from, published_until }) => [
      [code(kid), h('small', {}, text(`alg_${alg}`))],
      tag(text(`state_${state}`), { signing: 'ok', next: 'note' }[state]),
      time(signs_from),
      time(published_until),
      menu(kid, withdraw(kid, state)),
    ],
  })
}
