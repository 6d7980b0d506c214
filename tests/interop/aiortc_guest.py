"""aiortc as a guest of Quintet: it watches what Quintet sends, and reports the bitrate that it can receive
(REMB), the only feedback of that kind that it has.

    cargo build --release
    python3 tests/interop/aiortc_guest.py [--seconds 20] [--quintet target/release/quintet]

Needs the packages `aiortc` and `websockets`. Prints what arrived, and Quintet's estimate every five seconds.
"""

import argparse
import asyncio
import json
import os
import tempfile

import websockets
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

SESSION = "call"


async def count_frames(track, counts):
    """Decodes a track and counts its frames, and the pixels of the last one."""
    try:
        while True:
            frame = await track.recv()
            counts[track.kind] = counts.get(track.kind, 0) + 1
            if track.kind == "video":
                counts["height"] = frame.height
    except MediaStreamError:
        pass


async def join(hub, counts, seconds):
    """Joins the session as PROTOCOL.md says and answers each offer."""
    connections = {}
    async with websockets.connect(hub.replace("http", "ws") + "/signal") as socket:

        async def send(**message):
            await socket.send(json.dumps(message))

        async def ping(interval):
            while True:
                await asyncio.sleep(interval / 1000)
                await send(type="ping")

        async def answer(sender, payload):
            generation = payload["generation"]
            if generation not in connections:
                connections[generation] = RTCPeerConnection()
                connections[generation].on("track", lambda track: asyncio.ensure_future(count_frames(track, counts)))
            connection = connections[generation]
            await connection.setRemoteDescription(RTCSessionDescription(payload["sdp"], "offer"))
            await connection.setLocalDescription(await connection.createAnswer())
            sdp = connection.localDescription.sdp
            answer = {"type": "answer", "generation": generation, "sdp": sdp}
            await send(type="signal", session=SESSION, to=sender, payload=answer)
            media = {"type": "media", "microphone": False, "camera": False}
            await send(type="signal", session=SESSION, to=sender, payload=media)

        async def read():
            async for text in socket:
                message = json.loads(text)
                if message["type"] == "welcome":
                    asyncio.ensure_future(ping(message["heartbeat_ms"]))
                    await send(type="join", session=SESSION, wait=True)
                elif message["type"] == "signal" and message["payload"]["type"] == "offer":
                    await answer(message["from"], message["payload"])
                elif message["type"] == "error":
                    raise RuntimeError(message["message"])

        await send(type="hello", protocol=1, name="aiortc", instance="9f86d081884c7d65")
        try:
            await asyncio.wait_for(read(), seconds)
        except asyncio.TimeoutError:
            pass
        for connection in connections.values():
            await connection.close()


async def call(quintet, seconds):
    with tempfile.TemporaryDirectory() as home:
        names = ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
        program = await asyncio.create_subprocess_exec(
            quintet, "open", "--kind", "audio+video/one-way", "--id", SESSION, "--listen", "127.0.0.1:0",
            "--camera", "busy", "--microphone", "tone:440", "--speaker", "none", "--json",
            env={**os.environ, **{name: home for name in names}}, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
        )
        counts, events = {}, []
        opened = asyncio.get_running_loop().create_future()

        async def read():
            hub = None
            async for line in program.stdout:
                event = json.loads(line)
                events.append(event)
                hub = event.get("hub") if event["event"] == "listening" else hub
                if event["event"] == "opened":
                    opened.set_result(hub)

        reading = asyncio.ensure_future(read())
        try:
            await join(await opened, counts, seconds)
        finally:
            program.kill()
            await reading
    return counts, events


def estimates(events):
    """Quintet's estimate for its guest, in kbit/s, in each of its statistics."""
    for event in events:
        for session in event.get("sessions", []) if event["event"] == "stats" else []:
            for participant in session["participants"]:
                pair = [one for one in participant["rtc"] if "availableOutgoingBitrate" in one]
                if pair:
                    yield round(pair[0]["availableOutgoingBitrate"] / 1000)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--quintet", default="target/release/quintet")
    args = parser.parse_args()
    counts, events = asyncio.run(call(args.quintet, args.seconds))
    print(f"decoded in {args.seconds} s: {counts}; estimates in kbit/s: {list(estimates(events))[::5]}")


if __name__ == "__main__":
    main()
