"""Rate limits: by address, by client, and for each person.

| What is bounded | by | kept | set by |
| --- | --- | --- | --- |
| logins | `LoginLimiter` | in Redis, or a process | `LOGIN_RATE_LIMIT` |
| scans of an address or client; pictures from WeChat | `RateLimiter` | in Redis, or a process | `SCAN_…_LIMIT` |
| a client's signatures and moderation | `RateLimiter` | in a process | - |
| new client documents of one address | `RateLimiter` | in Redis, or a process | - |
| new client documents of all addresses | `RateLimiter` | in a process | - |
| assertions of a client by document | `RateLimiter` | in a process | - |
| how often one assertion is used: once | `Rate` | in PostgreSQL | - |
| what costs a person's quota or money at WeChat, or makes work for others | `Rate` | in PostgreSQL | - |
| requests of one session and one person at once: they wait | `Concurrency` | in a process | - |
| phone codes, uploads, large exports at once: refused | `Places`, `Phones`, `own_data` | in a process | - |
| rows that refusals or reading staff may add | `Refusals`, `StaffReads` | in a process | - |
"""
