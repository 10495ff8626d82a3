// A browser does not send the token if the user follows a link. For this reason, the script fetches members' pages with
// the token, and shows them in this page.
// 浏览器打开链接时不会携带令牌，因此会员内容由脚本带上令牌获取，并显示在页面中。

const form = document.querySelector('form')
const section = document.querySelector('section')
const leave = document.querySelector('#leave')

const token = () => sessionStorage.getItem('access_token')
const bearer = () => (token() ? { Authorization: `Bearer ${token()}` } : {})

async function ask(path, options) {
  const answer = await fetch(path, options)
  if (answer.ok) return answer
  const problem = answer.headers.get('Content-Type') === 'application/problem+json'
  throw new Error(problem ? (await answer.json()).title : `${answer.status} ${answer.statusText}`)
}

async function show(content) {
  try {
    section.innerHTML = await content()
    section.classList.remove('refused')
  } catch (error) {
    section.textContent = error.message
    section.classList.add('refused')
  }
  leave.disabled = !token()
}

form.addEventListener('submit', (event) => {
  event.preventDefault()
  show(async () => {
    // The simulated WeChat accepts any simple name as a code. In a mini-program, the code comes from wx.login.
    const body = JSON.stringify({ code: form.elements.person.value })
    const answer = await ask('/v1/login', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body })
    const { access_token, user } = await answer.json()
    sessionStorage.setItem('access_token', access_token)
    return `<p>已登录 <span lang="en">Logged in</span></p><p><code>${user.id}</code></p>`
  })
})

leave.addEventListener('click', () =>
  show(async () => {
    const headers = bearer()
    sessionStorage.removeItem('access_token')
    await ask('/v1/logout', { method: 'POST', headers })
    return '<p>已退出 <span lang="en">Logged out</span></p>'
  }),
)

for (const button of document.querySelectorAll('[data-path]')) {
  button.addEventListener('click', () => show(async () => (await ask(button.dataset.path, { headers: bearer() })).text()))
}

leave.disabled = !token()
