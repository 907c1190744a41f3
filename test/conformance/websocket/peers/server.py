"""The same echo server by the library `websockets`: see ws-server.js. Arguments: PORT."""

import asyncio
import sys

import websockets

ends = {}


async def serve(socket, path):
    try:
        async for message in socket:
            if isinstance(message, bytes) or not message.startswith("!"):
                await socket.send(message)
                continue
            verb, first, second = (message[1:].split(" ") + ["", ""])[:3]
            if verb == "close":
                await socket.close(int(first), second)
            elif verb == "terminate":
                socket.transport.abort()
            elif verb == "end-of":
                await socket.send(ends.get(first, ""))
            elif verb == "extensions":
                await socket.send(", ".join(each.name for each in socket.extensions))
            elif verb == "ping":
                await (await socket.ping(first))
                await socket.send("pong " + first)
            elif verb == "fragments":
                await socket.send(["one ", "two ", "three"])
    except websockets.ConnectionClosed:
        pass
    finally:
        ends[path] = f"{socket.close_code} {socket.close_reason}"


async def main():
    async with websockets.serve(
        serve, "0.0.0.0", int(sys.argv[1]), max_size=None, subprotocols=["chat.v1"]
    ):
        print("listening", flush=True)
        await asyncio.Future()


asyncio.run(main())
