"""aiohttp through the gateway, over HTTP and, with aiohttp-socks, over SOCKS5 and SOCKS4a.

Arguments: the gateway's host:port, its token, the target without and with TLS, the authority's certificate.
"""

import asyncio
import ssl
import sys

import aiohttp
from aiohttp_socks import ProxyConnector, ProxyType

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
    host, port = gateway.split(":")
    # SOCKS4 knows no passwords: the user is USER:PASSWORD.
    for connector in (
        ProxyConnector.from_url(f"socks5://default:{token}@{gateway}", rdns=True),
        ProxyConnector(host, int(port), ProxyType.SOCKS4, username=f"default:{token}", rdns=True),
    ):
        async with aiohttp.ClientSession(connector=connector) as session:
            await ask(session)


asyncio.run(main())
print("ok")
