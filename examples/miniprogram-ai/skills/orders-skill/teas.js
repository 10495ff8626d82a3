// The SKILL has the same file, because it cannot load files of the main package.
// SKILL 不能加载主包的文件，所以那里也有同样的一份。
export const TEAS = {
  oolong: { name: '乌龙茶', about: '半发酵，清香' },
  jasmine: { name: '茉莉花茶', about: '绿茶窨制，花香' },
}

/** Only one of these: not `constructor`, which every object has. 只取这里列出的茶，不取对象自带的 `constructor`。 */
export const teaOf = (id) => (Object.keys(TEAS).includes(id) ? TEAS[id] : undefined)
