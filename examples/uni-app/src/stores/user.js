import { defineStore } from 'pinia'
import { ref } from 'vue'
import { auth } from '../auth.js'

/** The last known user, which pages show. It is a reactive copy of `auth.user`. */
export const useUser = defineStore('user', () => {
  const user = ref(auth.user)
  auth.onChange((changed) => (user.value = changed))
  return { user }
})
