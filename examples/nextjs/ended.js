// The `sid` of each session that wxauth has ended, with the time at which its cookie expires. If you run several
// processes, use your database.
// The map is global, because Next.js loads a module once for each route.
export const ended = (globalThis.endedSessions ??= new Map())
