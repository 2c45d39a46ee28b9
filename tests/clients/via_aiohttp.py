"""aiohttp through the gateway, over HTTP and, with aiohttp-socks, over SOCKS5 and SOCKS4a.

Arguments: the gateway's host:port, its token, the target without and with TLS, the authority's certificate.
"""

import asyncio
import ssl
import sys

import aiohttp
from aiohttp_socks import ProxyConnector

gateway, token, plain, tls, ca = sys.argv[1:]
trust = ssl.create_default_context(cafile=ca)


async def ask(session, **options):
    for target in plain, tls:
        for number in range(3):
            async with session.get(f"{target}/get?number={number}", ssl=trust, **options) as reply:
                assert (await reply.json())["args"] == {"number": str(number)}, await reply.text()
        async with session.post(f"{target}/post", data=b"y" * 50_000, ssl=trust, **options) as reply:
            assert (await reply.json())["data"] == "y" * 50_000


async def main():
    async with aiohttp.ClientSession() as session:
        await ask(session, proxy=f"http://default-session-aiohttp:{token}@{gateway}")
    # SOCKS4 knows no passwords: the user is USER:PASSWORD.
    for url in f"socks5://default:{token}@{gateway}", f"socks4://default%3A{token}@{gateway}":
        async with aiohttp.ClientSession(connector=ProxyConnector.from_url(url, rdns=True)) as session:
            await ask(session)


asyncio.run(main())
print("ok")
