// The SKILL contains a copy of this file, because it cannot load files of the main package.
// SKILL 不能加载主包的文件，所以 SKILL 中也有同样的一份。
export const TEAS = {
  oolong: { name: '乌龙茶', about: '半发酵，清香' },
  jasmine: { name: '茉莉花茶', about: '绿茶窨制，花香' },
}

/**
 * Returns the tea with this id, or undefined. An id such as `constructor` must not return a built-in member.
 * 返回这个 id 的茶，没有则为 undefined。`constructor` 等对象自带的成员不算。
 */
export const teaOf = (id) => (Object.keys(TEAS).includes(id) ? TEAS[id] : undefined)
