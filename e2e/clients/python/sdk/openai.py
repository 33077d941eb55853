import openai

ASK = {"model": "gpt-4o", "max_tokens": 20}
TOOL = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


def client(base):
    return openai.OpenAI(base_url=f"{base}/v1", api_key="key")


def says(text):
    return [{"role": "user", "content": text}]


def plain(base):
    return client(base).chat.completions.create(messages=says("How does water flow?"), **ASK).choices[0].message.content


def stream(base):
    chunks = list(client(base).chat.completions.create(messages=says("How does water flow?"), stream=True, **ASK))
    assert all(chunk.choices for chunk in chunks), "nobody asked for a chunk about usage"
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def tools(base):
    tools = [{"type": "function", "function": TOOL}]
    answer = client(base).chat.completions.create(messages=says("The weather?"), tools=tools, **ASK)
    call = answer.choices[0].message.tool_calls[0].function
    return f"{call.name} {call.arguments}"


def upload(base):
    return client(base).files.create(file=("notes.jsonl", b"{}\n" * 5000), purpose="batch").filename


def abort(base):
    with client(base).chat.completions.create(messages=says("Speak slowly."), stream=True, **ASK) as chunks:
        return next(iter(chunks)).choices[0].delta.content


def responses(base):
    answer = client(base).responses.create(model="gpt-5", input="How does water flow?", max_output_tokens=20)
    return answer.output_text


def responses_stream(base):
    asked = {"model": "gpt-5", "input": "How does water flow?", "max_output_tokens": 20}
    with client(base).responses.stream(**asked) as events:
        return "".join(event.delta for event in events if event.type == "response.output_text.delta")
