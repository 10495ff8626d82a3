"""Send requests with one token at once, and print how often each status and `current` has come back.

It takes a port, the number of requests, and the token, and runs in a process of its own, so that the service is not
delayed by the senders.
"""

import asyncio
import json
import resource
import sys
from collections import Counter


async def main(port: int, number: int, token: str) -> None:
    request = f"POST /refund HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n".encode()
    gate, turns = asyncio.Event(), asyncio.Semaphore(100)
    outcomes: Counter[str] = Counter()
    connected = 0

    async def send() -> None:
        nonlocal connected
        async with turns:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        connected += 1
        if connected == number:
            gate.set()
        try:
            await gate.wait()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            status = head.split(b" ", 2)[1].decode()
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            outcomes[f"{status} {body['current']}" if status == "200" else status] += 1
        finally:
            writer.close()

    await asyncio.gather(*(send() for _ in range(number)))
    sys.stdout.write(json.dumps(outcomes))


_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
