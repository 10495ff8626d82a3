db.users.find({openid: /^[\w-]{20,}$/}).forEach(user => print(JSON.stringify({
  app_id: "wx1a2b3c4d5e6f7a8b",
  openid: user.openid,
  unionid: /^[\w-]{24,36}$/.test(user.unionid) ? user.unionid : null,
  external_id: String(user._id),
  nickname: /^\P{Cc}+$/u.test(user.nickName ?? "") ? [...user.nickName.trim()].slice(0, 64).join("") : null,
  avatar_url: /^https?:\/\/[^\/ ]+[.][^ ]+$/.test(user.avatarUrl) ? user.avatarUrl.replace("http:", "https:") : null,
  phone: /^([+]?86)?1\d{10}$/.test(user.phone) ? "+86" + String(user.phone).slice(-11) : null,
  created_at: new Date(user.createdAt ?? NaN) > 0 ? new Date(user.createdAt).toISOString() : null
})))
