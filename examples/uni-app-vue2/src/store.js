import Vue from 'vue'
import Vuex from 'vuex'
import { auth } from './auth.js'

Vue.use(Vuex)

/** Has the last known user, which pages show. It is a reactive copy of `auth.user`. */
const store = new Vuex.Store({
  state: { user: auth.user },
  mutations: {
    setUser(state, user) {
      state.user = user
    },
  },
})
auth.onChange((user) => store.commit('setUser', user))

export default store
