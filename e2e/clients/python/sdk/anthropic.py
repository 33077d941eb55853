import anthropic

ASK = {"model": "claude-opus-4-5", "max_tokens": 15}


def client(base):
    return anthropic.Anthropic(base_url=base, api_key="key")


def says(text):
    return [{"role": "user", "content": text}]


def plain(base):
    return client(base).messages.create(messages=says("How does water flow?"), **ASK).content[0].text


def stream(base):
    with client(base).messages.stream(messages=says("How does water flow?"), **ASK) as events:
        return "".join(events.text_stream)


def tools(base):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"name": "get_weather", "input_schema": schema}]
    call = client(base).messages.create(messages=says("The weather?"), tools=tools, **ASK).content[0]
    return f"{call.name} {call.input['city']}"


def upload(base):
    return client(base).beta.files.upload(file=("notes.txt", b"notes" * 5000, "text/plain")).filename


def count(base):
    asked = client(base).messages.count_tokens(model=ASK["model"], messages=says("How does water flow?"))
    return str(asked.input_tokens)


def abort(base):
    with client(base).messages.stream(messages=says("Speak slowly."), **ASK) as events:
        return next(iter(events.text_stream))
