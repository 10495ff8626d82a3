import { auth, signIn, signOut } from '../auth.js'

async function logIn() {
  'use server'
  await signIn('wxauth')
}

async function logOut() {
  'use server'
  await signOut()
}

export default async function Page() {
  const session = await auth()
  return session ? (
    <form action={logOut}>
      {session.user.name ?? session.user.id} <button>Log out 退出</button>
    </form>
  ) : (
    <form action={logIn}>
      <button>Log in 登录</button>
    </form>
  )
}
