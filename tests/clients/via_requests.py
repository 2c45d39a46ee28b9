"""Python requests through the gateway.

Arguments: the gateway's host:port, its token, the target without and with TLS, the authority's certificate.
"""

import sys

import requests

gateway, token, plain, tls, ca = sys.argv[1:]


def session(user, scheme="http"):
    made = requests.Session()
    made.proxies = dict.fromkeys(("http", "https"), f"{scheme}://{user}:{token}@{gateway}")
    made.verify = ca
    # What the environment says about proxies and certificates is not meant here.
    made.trust_env = False
    return made


for scheme in "http", "socks5h":
    with session("default-session-requests", scheme) as client:
        for target in plain, tls:
            # The second and third go over a connection that was kept.
            for number in range(3):
                reply = client.get(f"{target}/get", params={"number": number}, timeout=60)
                assert reply.status_code == 200, (scheme, target, reply.status_code, reply.text)
                assert reply.json()["args"] == {"number": str(number)}, reply.text
            reply = client.post(f"{target}/post", data=b"x" * 100_000, timeout=60)
            assert reply.json()["data"] == "x" * 100_000, reply.text[:300]
            # No length known beforehand: sent in chunks.
            reply = client.post(f"{target}/post", data=iter([b"one ", b"two"]), timeout=60)
            assert reply.json()["data"] == "one two", reply.text
            reply = client.head(f"{target}/bytes/1000", timeout=60)
            assert (reply.headers["content-length"], reply.content) == ("1000", b""), reply.headers
            reply = client.get(f"{target}/bytes/3000000", timeout=60)
            assert len(reply.content) == 3_000_000

with session("default-tier-golden") as client:
    reply = client.get(f"{plain}/get", timeout=60)
    assert reply.status_code == 407 and "golden" in reply.text, (reply.status_code, reply.text)
    try:
        client.get(f"{tls}/get", timeout=60)
        raise SystemExit("a tier that does not exist opened a tunnel")
    except requests.exceptions.ProxyError as error:
        assert "407" in str(error), error

print("ok")
