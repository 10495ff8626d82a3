// The return values of atomic interfaces. 原子接口的返回值。
export const said = (text, more) => ({ isError: false, content: [{ type: 'text', text }], ...more })
export const failed = (text) => ({ isError: true, content: [{ type: 'text', text }] })
