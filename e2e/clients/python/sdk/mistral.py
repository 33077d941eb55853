from mistralai.client import Mistral

ASK = {"model": "mistral-large", "max_tokens": 20}


def client(base):
    return Mistral(api_key="key", server_url=base)


def says(text):
    return [{"role": "user", "content": text}]


def plain(base):
    return client(base).chat.complete(messages=says("How does water flow?"), **ASK).choices[0].message.content


def stream(base):
    sdk = client(base)
    with sdk.chat.stream(messages=says("How does water flow?"), **ASK) as events:
        return "".join(event.data.choices[0].delta.content for event in events)


def tools(base):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]
    answer = client(base).chat.complete(messages=says("The weather?"), tools=tools, **ASK)
    call = answer.choices[0].message.tool_calls[0].function
    return f"{call.name} {call.arguments}"


def upload(base):
    sdk = client(base)
    return sdk.files.upload(file={"file_name": "notes.jsonl", "content": b"{}\n" * 5000}, purpose="batch").filename


def abort(base):
    sdk = client(base)
    with sdk.chat.stream(messages=says("Speak slowly."), **ASK) as events:
        return next(iter(events)).data.choices[0].delta.content
