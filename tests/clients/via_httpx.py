"""httpx through the gateway, blocking and asyncio.

Arguments: the gateway's host:port, its token, the target without and with TLS, the authority's certificate.
"""

import asyncio
import ssl
import sys

import httpx

gateway, token, plain, tls, ca = sys.argv[1:]
trust = ssl.create_default_context(cafile=ca)

for scheme in "http", "socks5":
    with httpx.Client(proxy=f"{scheme}://default:{token}@{gateway}", verify=trust, timeout=60) as client:
        for target in plain, tls:
            for number in range(3):
                reply = client.get(f"{target}/get", params={"number": number})
                assert reply.json()["args"] == {"number": str(number)}, reply.text
            with client.stream("GET", f"{target}/bytes/3000000") as reply:
                assert sum(len(part) for part in reply.iter_bytes()) == 3_000_000


async def many():
    url = f"http://default-session-httpx:{token}@{gateway}"
    async with httpx.AsyncClient(proxy=url, verify=trust, timeout=60) as client:
        replies = await asyncio.gather(*(client.get(f"{to}/get") for to in (plain, tls) for _ in range(10)))
        assert [reply.status_code for reply in replies] == [200] * 20, replies


asyncio.run(many())
with httpx.Client(proxy=f"http://default:wrong@{gateway}", verify=trust, timeout=60) as client:
    assert client.get(f"{plain}/get").status_code == 407
    try:
        client.get(f"{tls}/get")
        raise SystemExit("a wrong token opened a tunnel")
    except httpx.ProxyError as error:
        assert "407" in str(error), error

print("ok")
