import ollama

ASK = {"model": "llama3", "options": {"num_predict": 20}}


def says(text):
    return [{"role": "user", "content": text}]


def plain(base):
    return ollama.Client(host=base).chat(messages=says("How does water flow?"), **ASK).message.content


def stream(base):
    lines = ollama.Client(host=base).chat(messages=says("How does water flow?"), stream=True, **ASK)
    return "".join(line.message.content for line in lines)


def tools(base):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]
    answer = ollama.Client(host=base).chat(messages=says("The weather?"), tools=tools, **ASK)
    call = answer.message.tool_calls[0].function
    return f"{call.name} {call.arguments['city']}"


def abort(base):
    lines = ollama.Client(host=base).chat(messages=says("Speak slowly."), stream=True, **ASK)
    first = next(lines).message.content
    lines.close()
    return first
