"""The library `websockets` as a client; the cases are those of cases.js. Arguments: HOST PORT whole|short."""

import asyncio
import hashlib
import json
import os
import sys

import websockets

URL = f"ws://{sys.argv[1]}:{sys.argv[2]}"
CASE_SECONDS = 30


def open(path, **options):
    return websockets.connect(URL + path, max_size=None, **options)


def same(found, wanted):
    assert found == wanted, f"{found!r:.200}, not {wanted!r:.200}"


async def closed(socket):
    await socket.wait_closed()
    return f"{socket.close_code} {socket.close_reason}"


async def saw_end(path, wanted):
    async with open("/ends") as socket:
        seen = ""
        while seen == "":
            await socket.send("!end-of " + path)
            seen = await socket.recv()
        same(seen, wanted)


async def text():
    async with open("/text") as socket:
        for each in ["héllo ☃ 𝄞", "", "x" * 70000]:
            await socket.send(each)
            same(await socket.recv(), each)


async def binary():
    async with open("/binary") as socket:
        for length in [0, 1, 125, 126, 65535, 65536, 1000000]:
            each = os.urandom(length)
            await socket.send(each)
            same(await socket.recv(), each)


async def fragments():
    async with open("/fragments") as socket:
        await socket.send(["one ", "two ", "three"])
        same(await socket.recv(), "one two three")


async def fragments_back():
    async with open("/fragments-back") as socket:
        await socket.send("!fragments")
        same(await socket.recv(), "one two three")


async def ping():
    async with open("/ping") as socket:
        await (await socket.ping("are you there?"))


async def ping_back():
    async with open("/ping-back") as socket:
        await socket.send("!ping payload")
        same(await socket.recv(), "pong payload")


async def protocol():
    async with open("/protocol", subprotocols=["chat.v2", "chat.v1"]) as socket:
        same(socket.subprotocol, "chat.v1")


async def deflate():
    async with open("/deflate") as socket:
        same([each.name for each in socket.extensions], ["permessage-deflate"])
        for _ in range(3):
            each = "the same again and again " * 40000
            await socket.send(each)
            same(await socket.recv(), each)


async def client_closes():
    for code, reason in [(1000, ""), (3000, "enough"), (4999, "r" * 123)]:
        path = f"/py-client-closes-{code}"
        async with open(path) as socket:
            await socket.close(code, reason)
            same(await closed(socket), f"{code} {reason}")
        await saw_end(path, f"{code} {reason}")


async def server_closes():
    for code, reason in [(1001, "leaving"), (1011, ""), (4000, "bye")]:
        async with open("/server-closes") as socket:
            await socket.send(f"!close {code} {reason}")
            same(await closed(socket), f"{code} {reason}")


async def server_gone():
    async with open("/server-gone") as socket:
        await socket.send("!terminate")
        same(await closed(socket), "1006 ")


async def client_gone():
    async with open("/py-client-gone") as socket:
        await socket.send("hello")
        await socket.recv()
        socket.transport.abort()
    await saw_end("/py-client-gone", "1006 ")


async def large():
    async with open("/large", compression=None) as socket:
        each = os.urandom(1000000) * 100
        await socket.send(each)
        back = await socket.recv()
        same(hashlib.sha1(back).hexdigest(), hashlib.sha1(each).hexdigest())


CASES = {
    "text, with what UTF-8 needs four bytes for": text,
    "binary, of every form of length": binary,
    "fragments from the client": fragments,
    "fragments from the server": fragments_back,
    "a ping from the client": ping,
    "a ping from the server": ping_back,
    "a subprotocol": protocol,
    "compression (RFC 7692)": deflate,
    "the client closes with a code and a reason": client_closes,
    "the server closes with a code and a reason": server_closes,
    "the server is gone in mid-connection: 1006": server_gone,
    "the client is gone in mid-connection: 1006": client_gone,
    "100 MB in one message": large,
}


async def main():
    for name, run in CASES.items():
        if run is large and sys.argv[3] == "short":
            continue
        reason = ""
        try:
            await asyncio.wait_for(run(), CASE_SECONDS)
        except Exception as error:
            reason = repr(error)
        print(json.dumps({"name": name, "reason": reason}), flush=True)


asyncio.run(main())
