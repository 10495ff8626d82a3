// The section about the keys that sign access tokens and id_tokens.

import { get, post } from './api.js'
import { h } from './dom.js'
import { act, code, list, sure, tag, time, toast } from './parts.js'
import { searchWithin } from './search.js'
import { actOn, text } from './texts.js'

export function showKeys(main, { query }) {
  const place = h('div', {})
  const changed = async (ask) => {
    await ask()
    toast(text('done'))
    reload()
  }
  const reload = () =>
    list({
      place,
      caption: text('keys'),
      nothing: search.nothing,
      columns: ['kid', 'state', 'signsFrom', 'publishedUntil', 'acts'].map(text),
      ask: async () => {
        const { items, id_token_keys, ...rest } = await get('/keys')
        return search.among({ ...rest, items: [...items, ...id_token_keys] })
      },
      cells: ({ kid, alg, state, signs_from, published_until }) => [
        [code(kid), h('small', {}, text(`alg_${alg}`))],
        tag(text(`state_${state}`), { signing: 'ok', next: 'note' }[state]),
        time(signs_from),
        time(published_until),
        act(
          'withdraw',
          () =>
            sure(actOn('withdraw', kid), text('sureWithdraw'), 'withdraw', () =>
              changed(() => post(`/keys/${encodeURIComponent(kid)}/withdraw`)),
            ),
          { kind: 'small danger', label: actOn('withdraw', kid) },
        ),
      ],
    })
  const rotate = () => sure(text('rotateTitle'), text('sureRotate'), 'rotate', () => changed(() => post('/keys/rotate')))
  const search = searchWithin('keys', query, act('rotate', rotate))
  main.append(search.bar, place)
  reload()
}
