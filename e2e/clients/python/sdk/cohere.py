import cohere

ASK = {"model": "command-a", "max_tokens": 20}


def client(base):
    return cohere.ClientV2(api_key="key", base_url=base)


def says(text):
    return [{"role": "user", "content": text}]


def plain(base):
    return client(base).chat(messages=says("How does water flow?"), **ASK).message.content[0].text


def stream(base):
    sdk = client(base)
    return "".join(words(sdk.chat_stream(messages=says("How does water flow?"), **ASK)))


def words(events):
    return (event.delta.message.content.text for event in events if event.type == "content-delta")


def tools(base):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]
    call = client(base).chat(messages=says("The weather?"), tools=tools, **ASK).message.tool_calls[0].function
    return f"{call.name} {call.arguments}"


def upload(base):
    data = ("notes.jsonl", b"{}\n" * 5000)
    return client(base).datasets.create(name="notes", type="embed-input", data=data).id


def abort(base):
    sdk = client(base)
    return next(words(sdk.chat_stream(messages=says("Speak slowly."), **ASK)))
