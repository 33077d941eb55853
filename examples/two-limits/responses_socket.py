"""Calls OpenAI's Responses API over a WebSocket, with nothing but Python's standard library.

responses_socket.py HOST:PORT TOKEN-FILE MAX...: one call in the same socket for each maximum of output tokens.
"""
import base64
import json
import os
import socket
import struct
import sys

address, token, maxima = sys.argv[1], open(sys.argv[2]).read().strip(), sys.argv[3:]
host, port = address.split(":")
stream = socket.create_connection((host, int(port)), timeout=30)
incoming = stream.makefile("rb")


def upgrade():
    key = base64.b64encode(os.urandom(16)).decode()
    stream.sendall(
        f"GET /v1/responses HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: Upgrade\r\n"
        f"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
    )
    status = incoming.readline().decode().strip()
    while incoming.readline().strip():
        pass
    if " 101 " not in status:
        sys.exit(status)


def send(text):
    payload, mask = text.encode(), os.urandom(4)
    length = struct.pack("!BBH", 0x81, 0x80 | 126, len(payload))
    stream.sendall(length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))


def receive():
    """Reads a frame. Returns its opcode and its payload, which servers do not mask."""
    opcode, length = incoming.read(2)
    if length == 126:
        (length,) = struct.unpack("!H", incoming.read(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", incoming.read(8))
    return opcode & 0x0F, incoming.read(length)


def ask(maximum):
    send(json.dumps({"type": "response.create", "model": "gpt-4o", "input": "Hi", "max_output_tokens": maximum}))
    while True:
        opcode, payload = receive()
        if opcode == 8:
            sys.exit(f"closed with {struct.unpack('!H', payload[:2])[0]}: {payload[2:].decode()}")
        if opcode != 1:
            continue
        event = json.loads(payload)
        if event["type"] == "response.completed":
            print(f"completed: {event['response']['usage']['total_tokens']} tokens", flush=True)
            return
        if event["type"] == "error":
            print(f"error {event['status']}: {event['error']['message']}", flush=True)


upgrade()
for maximum in maxima:
    ask(int(maximum))
