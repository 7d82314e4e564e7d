#!/usr/bin/env python3
"""A client of a Spillway server in plain Python, written from docs/protocol.md alone.

    python3 spillway_client.py send ws://127.0.0.1:7411 orders < lines.txt
    python3 spillway_client.py take ws://127.0.0.1:7411 orders --count 10

`send` waits for credit, sends each line with an idempotency key, and prints the id of each message once
it is durable. `take` prints each message and acknowledges it. Both resume their session when a
connection breaks. SPILLWAY_TOKEN is the token, if the server wants one.
"""

import argparse
import base64
import collections
import hashlib
import json
import os
import select
import socket
import ssl
import struct
import sys
import time
import urllib.parse

LOOSE = {"hello", "ack", "ping", "pong", "beat", "credit", "working"}


def now_ms():
    return time.monotonic() * 1000


# Which partition: "Partitions and steering" in the protocol.


def hash32(seed, text):
    h = (seed ^ 0x811C9DC5) & 0xFFFFFFFF
    units = text.encode("utf-16-le", "surrogatepass")
    for (unit,) in struct.iter_unpack("<H", units):
        h = ((h ^ unit) * 0x01000193) & 0xFFFFFFFF
    h = ((h ^ 0xFF) * 0x01000193) & 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return h ^ (h >> 16)


def hash53(text):
    return ((hash32(0x9E3779B9, text) & 0x1FFFFF) << 32) + hash32(0x85EBCA6B, text) + 1


def shards_of(group, partitions, count):
    everywhere = range(partitions)
    if count >= partitions:
        return list(everywhere)
    return sorted(everywhere, key=lambda p: -hash32(p, group))[:count]


def partition_of(flow, key, group, idempotency_key):
    """The partition of a message, or None: any will do."""
    among = list(range(flow["partitions"]))
    if group is not None:
        among = shards_of(group, flow["partitions"], flow["shards"])
    if key is not None and flow["isOrdered"]:
        return among[hash53(key) % len(among)]
    if idempotency_key is not None:
        return among[hash53(idempotency_key) % len(among)]
    return among[0] if group is not None else None


class WebSocket:
    """As much of RFC 6455 as this needs: a client that masks, and takes whole or fragmented messages."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        secure = parts.scheme in ("wss", "https")
        address = (parts.hostname, parts.port or (443 if secure else 80))
        self.sock = socket.create_connection(address, timeout=10)
        if secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=parts.hostname)
        self.buffer = b""
        self.fragments = b""
        self.kind = 0
        self._greet(parts.netloc, parts.path.rstrip("/") + "/v1/connect")

    def _greet(self, host, path):
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: spillway.v1",
        ]
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"\r\n\r\n" not in self.buffer:
            self._read()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        if b" 101 " not in head.split(b"\r\n")[0] or base64.b64encode(accept) not in head:
            raise SystemExit("refused: " + head.split(b"\r\n")[0].decode())

    def _read(self):
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the server hung up")
        self.buffer += data

    def send(self, data, opcode):
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
        mask = os.urandom(4)
        repeated = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
        self.sock.sendall(head + mask + masked)

    def receive(self, timeout_s):
        """The next message, text or bytes; None if none came in this time."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._take()
            if message is not None:
                return message
            left = deadline - time.monotonic()
            pending = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0
            if not pending and (left <= 0 or not select.select([self.sock], [], [], left)[0]):
                return None
            self._read()

    def _take(self):
        while len(self.buffer) >= 2:
            first, size = self.buffer[0], self.buffer[1] & 0x7F
            at = 2
            if size >= 126:
                width = 2 if size == 126 else 8
                at += width
                if len(self.buffer) < at:
                    return None
                size = int.from_bytes(self.buffer[2:at], "big")
            if len(self.buffer) < at + size:
                return None
            data, self.buffer = self.buffer[at : at + size], self.buffer[at + size :]
            opcode = first & 0x0F
            if opcode == 8:
                raise ConnectionError(f"closed: {data[2:].decode()}")
            if opcode == 9:
                self.send(data, 10)
            if opcode in (1, 2):
                self.kind, self.fragments = opcode, b""
            if opcode <= 2:
                self.fragments += data
                if first & 0x80:
                    return self.fragments.decode() if self.kind == 1 else self.fragments
        return None


class Session:
    """Numbered frames that arrive once, in order, over as many connections as it takes."""

    def __init__(self, url, on_frame, on_reset, log=None):
        self.url, self.on_frame, self.on_reset, self.log = url, on_frame, on_reset, log
        self.resume = None
        self.ws = None
        self._begin()

    def _begin(self):
        self.sent = self.received = self.told = 0
        self.kept = collections.deque()

    def connect(self):
        pause_s = 0.05
        while True:
            try:
                self.ws = WebSocket(self.url)
                return self._hello()
            except OSError as error:
                print(f"no connection: {error}", file=sys.stderr)
                time.sleep(pause_s)
                pause_s = min(5, pause_s * 2)

    def _hello(self):
        hello = {"kind": "hello", "client": "python"}
        if "SPILLWAY_TOKEN" in os.environ:
            hello["token"] = os.environ["SPILLWAY_TOKEN"]
        if self.resume is not None:
            hello["resume"] = {**self.resume, "received": self.received}
        self._write([hello])
        welcome = None
        while welcome is None:
            for frame, _ in self._read(5):
                if frame["kind"] == "bye":
                    raise SystemExit(f"{frame['code']}: {frame['text']}")
                welcome = frame
        if self.resume is not None and not welcome["isResumed"]:
            self._begin()
        self.resume = {"session": welcome["session"], "secret": welcome["secret"]}
        self.silence_s = welcome["silenceMs"] / 1000
        self.heard_s = time.monotonic()
        self._acknowledged(welcome["received"])
        self.told = self.received
        # Something must be said now: by it the server learns that the new secret has come.
        self._write([{"kind": "ping", "id": 0}])
        for frame, bodies in list(self.kept):
            self._write([frame], bodies)
        if not welcome["isResumed"]:
            self.on_reset()

    def _acknowledged(self, received):
        while self.kept and self.kept[0][0]["n"] <= received:
            self.kept.popleft()

    def send(self, frame, bodies=b""):
        if frame["kind"] not in LOOSE:
            self.sent += 1
            frame = {"n": self.sent, **frame}
            self.kept.append((frame, bodies))
        try:
            self._write([frame], bodies)
        except OSError:
            self.connect()

    def _write(self, frames, bodies=b""):
        if self.log:
            print("C", *map(json.dumps, frames), file=self.log)
        text = json.dumps(frames, separators=(",", ":")).encode()
        if bodies:
            self.ws.send(struct.pack("!I", len(text)) + text + bodies, 2)
        else:
            self.ws.send(text, 1)

    def _read(self, timeout_s):
        """Frames of the next message, each with the bodies of its items."""
        message = self.ws.receive(timeout_s)
        if message is None:
            return []
        body = b""
        if isinstance(message, bytes):
            (size,) = struct.unpack("!I", message[:4])
            message, body = message[4 : 4 + size].decode(), message[4 + size :]
        frames = []
        for frame in json.loads(message):
            bodies = []
            for item in frame.get("messages", []):
                ends = item.get("headerBytes", 0), item.get("headerBytes", 0) + item["bytes"]
                bodies.append((body[: ends[0]], body[ends[0] : ends[1]]))
                body = body[ends[1] :]
            if self.log:
                print("S", json.dumps(frame), file=self.log)
            frames.append((frame, bodies))
        return frames

    def pump(self, timeout_s):
        """Takes what comes within this time; connects again if that is necessary."""
        try:
            frames = self._read(timeout_s)
            if frames:
                self.heard_s = time.monotonic()
            elif time.monotonic() - self.heard_s > self.silence_s:
                raise ConnectionError("silence")
            for frame, bodies in frames:
                self._take(frame, bodies)
            if self.told < self.received:
                self.told = self.received
                self._write([{"kind": "ack", "received": self.received}])
        except OSError as error:
            print(f"connection lost: {error}", file=sys.stderr)
            self.connect()

    def _take(self, frame, bodies):
        kind = frame["kind"]
        if "n" in frame:
            if frame["n"] <= self.received:
                return
            self.received = frame["n"]
        if kind == "ack":
            self._acknowledged(frame["received"])
        elif kind == "ping":
            self._write([{"kind": "pong", "id": frame["id"]}])
        elif kind == "bye":
            if frame["code"] in ("protocol_violated", "unauthenticated", "forbidden"):
                raise SystemExit(f"{frame['code']}: {frame['text']}")
            time.sleep(frame.get("retryAfterMs", 0) / 1000)
        elif kind == "rejected":
            raise SystemExit(f"{frame['code']}: {frame['text']}")
        elif kind != "pong":
            self.on_frame(frame, bodies)

    def close(self):
        while self.kept:
            self.pump(0.1)
        self.ws.send(struct.pack("!H", 1000), 8)


class Stream:
    """Credit of one partition: "Hop 1" in the protocol."""

    def __init__(self):
        self.is_open = False
        self.epoch, self.limit, self.limit_bytes = -1, 0, 0
        self.spent, self.spent_bytes = 0, 0
        self.lease_end = self.beat_at = self.granted_at = float("-inf")
        self.lease_ms, self.grant_id, self.gap_ms, self.head_bytes = 2000, -1, 20, 0
        self.position = 0
        self.waiting, self.unanswered = collections.deque(), {}

    def grant(self, grant):
        if grant["epoch"] < self.epoch:
            return
        limit_bytes = grant.get("limitBytes", float("inf"))
        if grant["epoch"] > self.epoch:
            self.epoch, self.limit, self.limit_bytes = grant["epoch"], 0, 0
            self.spent = self.spent_bytes = 0
        self.limit = max(self.limit, grant["limitMessages"])
        self.limit_bytes = max(self.limit_bytes, limit_bytes)
        self.lease_ms, self.grant_id = grant["leaseMs"], grant["grantId"]
        self.lease_end = max(self.lease_end, grant["echoHeartbeatMs"] + grant["leaseMs"])
        self.granted_at, self.gap_ms = now_ms(), 20

    def can_spend(self, size):
        fits = self.spent < self.limit and self.spent_bytes + size <= self.limit_bytes
        can = fits and now_ms() < self.lease_end
        self.head_bytes = 0 if can else size
        return can

    def beat(self):
        self.beat_at = now_ms()
        return {
            "heartbeatMs": self.beat_at,
            "position": self.spent,
            "positionBytes": self.spent_bytes,
            "want": len(self.waiting),
            "wantBytes": sum(size for *_, size in self.waiting),
            "epoch": self.epoch,
            "headBytes": self.head_bytes if self.waiting else 0,
        }

    def beat_is_due(self):
        gap = self.lease_ms / 4
        if self.waiting and not self.can_spend(self.waiting[0][-1]):
            gap, self.gap_ms = min(gap, self.gap_ms), min(gap, self.gap_ms * 2)
        return now_ms() - self.beat_at >= gap


class Producer:
    def __init__(self, url, flow, log=None):
        self.flow, self.streams, self.attached = flow, {}, None
        self.unplaced, self.results = [], []
        self.session = Session(url, self.on_frame, self.on_reset, log)
        self.session.connect()
        while self.attached is None or not any(s.is_open for s in self.streams.values()):
            self.session.pump(0.1)

    def on_reset(self):
        # What had no answer may have been accepted: with an idempotency key it can be sent again.
        for stream in self.streams.values():
            self.unplaced += [*stream.unanswered.values(), *stream.waiting]
        self.streams = {}
        self.session.send({"kind": "attach", "channel": 0, "role": "produce", "flow": self.flow})

    def on_frame(self, frame, _bodies):
        kind = frame["kind"]
        if kind == "attached":
            self.attached = frame
            return
        stream = self.streams.setdefault(frame["partition"], Stream())
        if kind in ("opened", "closed"):
            again = [*stream.unanswered.values(), *stream.waiting]
            stream = self.streams[frame["partition"]] = Stream()
            stream.waiting.extend(again)
            stream.is_open = kind == "opened"
        elif kind == "grant":
            stream.grant(frame["grant"])
        elif kind == "results":
            for result in frame["results"]:
                self.answer(stream, frame["partition"], result)

    def answer(self, stream, partition, result):
        for at in range(result.get("count", 1)):
            message = stream.unanswered.pop(result["position"] + at, None)
            if message is None:
                continue
            if result["kind"] != "refused":
                self.results.append(f"{self.flow}/{partition}/{result['seq'] + at}")
            elif result["code"] in ("no_credit", "buffer_full", "class_closed"):
                stream.waiting.appendleft(message)
            else:
                raise SystemExit(f"refused: {result['code']}")

    def send(self, payload, key=None, group=None, idempotency_key=None):
        head = {"bytes": len(payload), "key": key, "group": group, "idempotencyKey": idempotency_key}
        head = {name: value for name, value in head.items() if value is not None}
        self.unplaced.append((head, payload, len(payload) + len(key or "") + len(group or "")))

    def place(self):
        names = ("key", "group", "idempotencyKey")
        for message in self.unplaced:
            partition = partition_of(self.attached, *(message[0].get(name) for name in names))
            self.streams.setdefault(partition or 0, Stream()).waiting.append(message)
        self.unplaced = []

    def flush(self):
        """Sends what has credit, and says what has none."""
        self.place()
        for partition, stream in list(self.streams.items()):
            if not stream.is_open:
                continue
            batch = []
            while stream.waiting and len(batch) < 64 and stream.can_spend(stream.waiting[0][-1]):
                batch.append(stream.waiting.popleft())
                stream.spent += 1
                stream.spent_bytes += batch[-1][-1]
            to = {"channel": 0, "partition": partition}
            if batch:
                held_ms = max(0, now_ms() - stream.granted_at)
                stamp = {"epoch": stream.epoch, "grantId": stream.grant_id, "heldMs": held_ms}
                frame = {"kind": "send", **to, "stamp": stamp, "position": stream.position}
                for message in batch:
                    stream.unanswered[stream.position] = message
                    stream.position += 1
                drafts = [head for head, *_ in batch]
                payloads = b"".join(payload for _, payload, _ in batch)
                self.session.send({**frame, "drafts": drafts, "beat": stream.beat()}, payloads)
            elif stream.waiting and stream.beat_is_due():
                self.session.send({"kind": "beat", **to, "beat": stream.beat()})

    def wait(self, count):
        """Until so many messages are durable."""
        while len(self.results) < count:
            self.flush()
            self.session.pump(0.02)


class Worker:
    """Takes `count` messages, a few at a time: "Hop 2" in the protocol."""

    def __init__(self, url, flow, count, handle, at_once=8, log=None):
        self.flow, self.left, self.handle, self.at_once = flow, count, handle, at_once
        self.confirming = set()
        self.session = Session(url, self.on_frame, self.on_reset, log)
        self.session.connect()
        while self.left > 0 or self.confirming:
            self.session.pump(0.1)
        self.session.close()

    def on_reset(self):
        # What was not confirmed may have counted or not: it may come again.
        self.left += len(self.confirming)
        self.epoch, self.grant_id, self.got, self.confirming = 1, 0, 0, set()
        self.session.send({"kind": "attach", "channel": 0, "role": "consume", "flow": self.flow})

    def on_frame(self, frame, bodies):
        if frame["kind"] == "attached":
            self.lease_ms = frame["creditLeaseMs"]
        elif frame["kind"] == "settled":
            self.confirming.discard((frame["partition"], frame["seq"], frame["attempt"]))
            if not frame["effective"]:
                self.left += 1
        elif frame["kind"] == "deliver":
            self.take(frame, bodies)
        if "beat" in frame:
            self.credit(frame["beat"])

    def take(self, frame, bodies):
        settlements = []
        for message, (_headers, payload) in zip(frame["messages"], bodies):
            self.got += 1
            started_ms = now_ms()
            self.handle(message, payload)
            delivery = {name: message[name] for name in ("partition", "seq", "attempt")}
            self.confirming.add(tuple(delivery.values()))
            self.left -= 1
            settlements.append(
                {
                    **delivery,
                    "verdict": {"kind": "ack"},
                    "durationMs": now_ms() - started_ms,
                    "confirm": True,
                }
            )
        self.session.send({"kind": "settle", "channel": 0, "settlements": settlements})

    def credit(self, beat):
        if beat["want"] == 0 or self.left <= 0:
            return
        self.grant_id += 1
        grant = {
            "epoch": self.epoch,
            "grantId": self.grant_id,
            "limitMessages": self.got + min(self.at_once, self.left),
            "echoHeartbeatMs": beat["heartbeatMs"],
            "leaseMs": self.lease_ms,
        }
        self.session.send({"kind": "credit", "channel": 0, "grant": grant})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["send", "take"])
    parser.add_argument("url")
    parser.add_argument("flow")
    parser.add_argument("--count", type=int, default=1, help="messages to take")
    parser.add_argument("--key", help="of every message that is sent")
    parser.add_argument("--name", default="line", help="prefix of the idempotency keys")
    parser.add_argument("--frames", action="store_true", help="show the conversation on stderr")
    args = parser.parse_args()
    log = sys.stderr if args.frames else None
    if args.what == "take":

        def handle(message, payload):
            print(message["seq"], payload.decode(), flush=True)

        Worker(args.url, args.flow, args.count, handle, log=log)
        return
    producer = Producer(args.url, args.flow, log)
    count = 0
    for line in sys.stdin:
        count += 1
        producer.send(line.rstrip("\n").encode(), args.key, None, f"{args.name}-{count}")
    producer.wait(count)
    producer.session.close()
    print("\n".join(producer.results))


if __name__ == "__main__":
    main()
