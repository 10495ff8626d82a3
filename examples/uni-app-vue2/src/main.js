import Vue from 'vue'
import App from './App.vue'
import { auth } from './auth.js'
import { request } from './request.js'
import store from './store.js'

Vue.config.productionTip = false
Vue.prototype.$auth = auth
Vue.prototype.$request = request
Vue.prototype.$showError = (error) => uni.showToast({ title: error.title, icon: 'none' })
Vue.prototype.$store = store

App.mpType = 'app'
new Vue(App).$mount()
