from langchain_anthropic import ChatAnthropic

from sdk.langchain import get_weather


def client(base):
    return ChatAnthropic(model="claude-opus-4-5", max_tokens=15, base_url=base, api_key="key")


def plain(base):
    return client(base).invoke("How does water flow?").content


def stream(base):
    return "".join(chunk.text for chunk in client(base).stream("How does water flow?"))


def tools(base):
    call = client(base).bind_tools([get_weather]).invoke("The weather?").tool_calls[0]
    return f"{call['name']} {call['args']['city']}"


def abort(base):
    chunks = client(base).stream("Speak slowly.")
    first = next(chunk.text for chunk in chunks if chunk.text)
    chunks.close()
    return first
