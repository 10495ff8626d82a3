"""Rate limits: by address, by client, and for each person.

| What is bounded | by | kept |
| --- | --- | --- |
| logins, scans, pictures, clients' requests; new documents of an address | `RateLimiter` | in Redis, or a process |
| a client's signatures and moderation; all new documents | `RateLimiter` | in a process |
| what costs a person's quota or money at WeChat, or makes work for others | `Rate` | in PostgreSQL |
| requests of one session and one person at once: they wait | `Turns` | in a process |
| phone codes and uploads of one person at once: they are refused | `Places` | in a process |
| rows that a flood of refusals, or of reading staff, may add | `Refusals`, `StaffReads` | in a process |
"""
