// Each `sid` that wxauth has ended, and when its cookie is over; of several processes, in your database.
export const ended = (globalThis.endedSessions ??= new Map()) // Next.js loads a module once for each route
