const time = (value) => new Date(value?.$date ?? value ?? NaN) > 0 ? new Date(value.$date ?? value).toISOString() : null
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const user = line.trim() ? JSON.parse(line) : {}
  if (/^[\w-]{20,}$/.test(user._openid)) console.log(JSON.stringify({
    app_id: "wx1a2b3c4d5e6f7a8b",
    openid: user._openid,
    unionid: /^[\w-]{24,36}$/.test(user.unionid) ? user.unionid : null,
    external_id: user._id.$oid ?? String(user._id),
    nickname: /^\P{Cc}+$/u.test(user.nickName ?? "") ? [...user.nickName.trim()].slice(0, 64).join("") : null,
    avatar_url: /^https?:\/\/[^\/ ]+[.][^ ]+$/.test(user.avatarUrl) ? user.avatarUrl.replace("http:", "https:") : null,
    phone: /^([+]?86)?1\d{10}$/.test(user.phone) ? "+86" + String(user.phone).slice(-11) : null,
    created_at: time(user.createTime)
  }))
})
