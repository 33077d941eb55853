"""Counts the WebAssembly instructions that the filter executes per request.

instructions.py MODULE [BEFORE]   compares two modules, if BEFORE is given

Unlike times, the counts are the same on every machine and however busy it is. They leave out what Envoy does in host
calls. Wasmtime runs the module and counts. It counts each byte that is copied or filled at once as one instruction,
although that takes far less time. This program stands in for Envoy, and for an adapter that admits all requests and
grants all leases.
"""
import collections, json, sys
import wasmtime

REQUESTS = 1000
# Requests in flight, as in the bench with Envoy. A tick and a millisecond pass after every second request.
IN_FLIGHT = 16

ROOT = 1
REQUEST_HEADERS, RESPONSE_HEADERS = 0, 2
REQUEST_BODY, RESPONSE_BODY, GRPC_MESSAGE, CONFIGURATION = 0, 1, 5, 7
OK, NOT_FOUND = 0, 1

PROMPT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello " * 80}]}
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1790000000, "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 160}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 60, "total_tokens": 100},
}
PROMPT, ANSWER = json.dumps(PROMPT).encode(), json.dumps(ANSWER).encode()
REQUEST = {
    ":authority": "llm.example", ":path": "/v1/chat/completions", ":method": "POST", ":scheme": "http",
    "content-type": "application/json", "content-length": str(len(PROMPT)), "user-agent": "bench",
    "x-forwarded-proto": "http", "x-request-id": "0b0b0b0b-1234-1234-1234-123456789abc",
    "x-identity": '{"userid":"alice","group":"free"}',
}
RESPONSE = {
    ":status": "200", "content-type": "application/json", "content-length": str(len(ANSWER)),
    "date": "Mon, 30 Nov 2026 12:00:00 GMT", "x-envoy-upstream-service-time": "0",
}


def limit(path="/v1/chat/completions", group="free", **fields):
    when = [f'request.path == "{path}"', f'auth.identity.group == "{group}"']
    return {
        "when": [{"predicate": predicate} for predicate in when],
        "counters": [{"expression": "auth.identity.userid"}],
        "rates": [{"limit": 10**12, "window": "24h"}],
        **fields,
    }


CASES = {
    "no limit for the path": {"a": limit(path="/v1/embeddings")},
    "no limit for who is asking": {"a": limit(group="gold")},
    "one limit, from a lease": {"a": limit()},
    "one limit, with a call": {"a": limit(lease="Never")},
    "eight limits, from leases": {f"a{number}": limit() for number in range(8)},
}


# Protocol buffers: fields are in the order of their numbers, integers are varints, and the rest are bytes.


def varint(number):
    high, low = number >> 7, number & 127
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(message):
    """Returns the values of each field of a message."""
    found, place = collections.defaultdict(list), 0

    def read_varint():
        nonlocal place
        number = shift = 0
        while True:
            byte, place = message[place], place + 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while place < len(message):
        key = read_varint()
        if key & 7 == 0:
            found[key >> 3].append(read_varint())
            continue
        length = {1: 8, 5: 4}.get(key & 7) or read_varint()
        found[key >> 3].append(message[place : place + length])
        place += length
    return found


class Stream:
    """A request and its response in Envoy."""

    def __init__(self):
        self.headers = {REQUEST_HEADERS: dict(REQUEST), RESPONSE_HEADERS: dict(RESPONSE)}


class Gateway:
    """A worker of Envoy that runs the module."""

    def __init__(self, module, limits):
        config = wasmtime.Config()
        config.consume_fuel = True
        engine = wasmtime.Engine(config)
        self.store = wasmtime.Store(engine)
        self.store.set_fuel(1 << 62)
        program = wasmtime.Module.from_file(engine, module)
        imports = [wasmtime.Func(self.store, one.type, self.host_call(one.name)) for one in program.imports]
        self.exports = wasmtime.Instance(self.store, program, imports).exports(self.store)
        self.counts = collections.Counter()
        self.reserves = 0
        self.now = 1_800_000_000 * 10**9
        self.streams, self.sent, self.channel, self.tokens = {}, [], None, 0
        self.context, self.message = ROOT, b""
        policy = {
            "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "bench"},
            "spec": {
                "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "bench"},
                "limits": limits,
            },
        }
        self.configuration = json.dumps({
            "adapter": {"cluster": "adapter"}, "identity": {"header": "x-identity", "encoding": "json"},
            "policies": [policy],
        }).encode()
        self.exports["_initialize"](self.store)
        self.call("proxy_on_context_create", ROOT, 0)
        self.call("proxy_on_vm_start", ROOT, 0)
        if not self.call("proxy_on_configure", ROOT, len(self.configuration)):
            sys.exit(f"{module} refuses the configuration")
        self.receive(field(8, 1))  # ReserveAndCommitResponse.grants_leases
        self.adapter_answers()

    def call(self, name, context, *arguments):
        self.context = context
        before = self.store.get_fuel()
        result = self.exports[name](self.store, context, *arguments)
        self.counts[name.removeprefix("proxy_on_")] += before - self.store.get_fuel()
        return result

    # Memory of the module.

    def read(self, place, size):
        return bytes(self.exports["memory"].read(self.store, place, place + size))

    def write(self, place, data):
        self.exports["memory"].write(self.store, data, place)

    def write_number(self, place, number, size=4):
        self.write(place, number.to_bytes(size, "little"))

    def give(self, data, place, size):
        if data is None:
            return NOT_FOUND
        copy = self.exports["malloc"](self.store, max(1, len(data)))
        self.write(copy, data)
        self.write_number(place, copy)
        self.write_number(size, len(data))
        return OK

    # Host calls. Those without a method here only succeed.

    def host_call(self, name):
        method = getattr(self, name, None)
        return (lambda *arguments: method(*arguments)) if method else (lambda *arguments: OK)

    def headers(self, kind):
        return self.streams[self.context].headers[kind]

    def proxy_get_current_time_nanoseconds(self, place):
        self.write_number(place, self.now, 8)
        return OK

    def proxy_get_buffer_bytes(self, kind, start, most, place, size):
        buffers = {
            REQUEST_BODY: PROMPT, RESPONSE_BODY: ANSWER, GRPC_MESSAGE: self.message, CONFIGURATION: self.configuration,
        }
        return self.give(buffers[kind][start : start + most], place, size)

    def proxy_get_property(self, path, path_size, place, size):
        match self.read(path, path_size).decode().split("\0"):
            case ["request", "headers", name]:
                value = self.headers(REQUEST_HEADERS).get(name)
                return self.give(value and value.encode(), place, size)
        return NOT_FOUND

    def proxy_get_shared_data(self, *_):
        return NOT_FOUND

    def proxy_get_header_map_value(self, kind, name, name_size, place, size):
        value = self.headers(kind).get(self.read(name, name_size).decode())
        return self.give(value and value.encode(), place, size)

    def proxy_get_header_map_pairs(self, kind, place, size):
        pairs = [(name.encode(), value.encode()) for name, value in self.headers(kind).items()]
        sizes = b"".join(len(text).to_bytes(4, "little") for pair in pairs for text in pair)
        texts = b"".join(text + b"\0" for pair in pairs for text in pair)
        return self.give(len(pairs).to_bytes(4, "little") + sizes + texts, place, size)

    def proxy_replace_header_map_value(self, kind, name, name_size, value, value_size):
        self.headers(kind)[self.read(name, name_size).decode()] = self.read(value, value_size).decode()
        return OK

    def proxy_remove_header_map_value(self, kind, name, name_size):
        self.headers(kind).pop(self.read(name, name_size).decode(), None)
        return OK

    def proxy_define_metric(self, _kind, _name, _size, place):
        self.tokens += 1
        self.write_number(place, self.tokens)
        return OK

    def proxy_set_effective_context(self, context):
        self.context = context
        return OK

    def proxy_grpc_stream(self, _to, _to_size, _service, _service_size, method, method_size, _data, _data_size, place):
        self.tokens += 1
        if self.read(method, method_size) == b"ReserveAndCommit":
            self.channel = self.tokens
        self.write_number(place, self.tokens)
        return OK

    def proxy_grpc_send(self, token, message, size, _end):
        if token == self.channel:
            self.sent.append(self.read(message, size))
        return OK

    # The adapter.

    def receive(self, message):
        self.message = message
        self.call("proxy_on_grpc_receive", ROOT, self.channel, len(message))

    def adapter_answers(self):
        while self.sent:
            message = fields(self.sent.pop(0))
            number, reserve, commit = message[1], message[2], message[3]
            answer = field(1, number[0]) if number else b""
            if reserve:
                answer += field(2, self.reserved(fields(reserve[0])))
            if commit:
                answer += field(3, field(100, 1 + len(fields(commit[0])[100])))
            if reserve or commit:
                self.receive(answer)

    def reserved(self, reserve):
        # OK, the limit, what remains, and milliseconds.
        status = field(1, 1) + field(2, 10**12) + field(3, 10**12) + field(4, 86400)
        answer = field(1, 1) + field(2, reserve[100][0])
        if reserve[103] == [1]:
            lease = field(1, reserve[3][0]) + field(2, 10_000) + varint(3 << 3 | 1) + bytes(8)
            return answer + field(100, status) + field(101, lease)
        self.reserves += 1
        return answer + b"".join(field(100, status) for _ in reserve[2])

    # Requests.

    def begin(self, context):
        self.streams[context] = Stream()
        self.call("proxy_on_context_create", context, ROOT)
        self.call("proxy_on_request_headers", context, len(REQUEST), 0)
        self.adapter_answers()
        self.call("proxy_on_request_body", context, len(PROMPT), 1)

    def finish(self, context):
        self.call("proxy_on_response_headers", context, len(RESPONSE), 0)
        self.call("proxy_on_response_body", context, len(ANSWER), 1)
        for name in ["proxy_on_done", "proxy_on_log", "proxy_on_delete"]:
            self.call(name, context)
        del self.streams[context]

    def serve(self, first, last):
        for context in range(first, last):
            self.begin(context)
            if context - IN_FLIGHT in self.streams:
                self.finish(context - IN_FLIGHT)
            if context % 2 == 0:
                self.now += 10**6
                self.call("proxy_on_tick", ROOT)
                self.adapter_answers()


def measure(module, limits):
    """Returns the instructions per request, by callback, and how many requests in 100 took a call."""
    gateway = Gateway(module, limits)
    # Long enough for leases.
    gateway.serve(2, REQUESTS)
    gateway.counts.clear()
    gateway.reserves = 0
    gateway.serve(REQUESTS, 2 * REQUESTS)
    return {name: count / REQUESTS for name, count in gateway.counts.items()}, gateway.reserves * 100 / REQUESTS


def thousands(count):
    return f"{count / 1000:.1f}"


def main(module, before=None):
    before_column = " before |" if before else ""
    print(f"| case | request's headers | response's headers | ticks | messages of the adapter | all |{before_column} calls |")
    print("|" + "---|" * (8 if before else 7))
    for name, limits in CASES.items():
        counts, calls = measure(module, limits)
        columns = ["request_headers", "response_headers", "tick", "grpc_receive"]
        row = [name] + [thousands(counts.get(column, 0)) for column in columns] + [thousands(sum(counts.values()))]
        if before:
            row.append(thousands(sum(measure(before, limits)[0].values())))
        print("| " + " | ".join(row) + f" | {calls:.0f} % |")


if __name__ == "__main__":
    main(*sys.argv[1:])
