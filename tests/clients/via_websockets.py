"""WebSockets through tunnels of the gateway, to a server of this process, over HTTP CONNECT and SOCKS5.

Arguments: the gateway's host:port, its token.
"""

import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

gateway, token = sys.argv[1:]


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    async with serve(echo, "127.0.0.1", 0, max_size=2**21) as server:
        port = server.sockets[0].getsockname()[1]
        for scheme in "http", "socks5h":
            proxy = f"{scheme}://default:{token}@{gateway}"
            async with connect(f"ws://target.test:{port}/", proxy=proxy, max_size=2**21) as socket:
                for message in "hello", os.urandom(1_000_000), "bye":
                    await socket.send(message)
                    assert await socket.recv() == message


asyncio.run(asyncio.wait_for(main(), 100))
print("ok")
