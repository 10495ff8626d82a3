"""The limits on the rate of requests, and on the number of requests that run at the same time.

| What is limited | Class | Where it is counted | Setting |
| --- | --- | --- | --- |
| logins, and login codes as proof, of one address | `LoginLimiter` | Redis, or each process | `LOGIN_RATE_LIMIT` |
| scans, visits and pages for sites; pictures from WeChat | `RateLimiter` | Redis, or each process | `SCAN_…_LIMIT` |
| signatures of a client, and its bans and sign-outs of users | `RateLimiter` | each process | - |
| new client documents from one address | `RateLimiter` | Redis, or each process | - |
| new client documents from all addresses | `RateLimiter` | each process | - |
| assertions of a client with a metadata document | `RateLimiter` | each process | - |
| uses of one assertion (only one is allowed) | `Rate` | PostgreSQL | - |
| actions of a user that use quota or money at WeChat, or load the database | `Rate` | PostgreSQL | - |
| wrong user codes that a user types | `Rate` | PostgreSQL | - |
| requests of one session or user at the same time (more wait) | `Concurrency` | each process | - |
| phone codes and uploads at the same time (more are refused) | `Places` | each process | - |
| large exports at the same time (more are refused) | a semaphore in `users/own_data.py` | each process | - |
| long messages from WeChat at the same time | a semaphore in `push/receiving.py` | each process | - |
| messages of one app that are forwarded at the same time | a semaphore in `push/forwarding.py` | each process | - |
| rows that refusals or reads by staff may add | `Refusals`, `StaffReads` | each process | - |
"""
