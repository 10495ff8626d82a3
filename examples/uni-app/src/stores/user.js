import { defineStore } from 'pinia'
import { ref } from 'vue'
import { auth } from '../auth.js'

/** The last known user, for pages to show: `auth.user`, made reactive. */
export const useUser = defineStore('user', () => {
  const user = ref(auth.user)
  auth.onChange((changed) => (user.value = changed))
  return { user }
})
