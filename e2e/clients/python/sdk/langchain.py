from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return city


def client(base):
    return ChatOpenAI(model="gpt-4o", max_tokens=20, base_url=f"{base}/v1", api_key="key")


def plain(base):
    return client(base).invoke("How does water flow?").content


def stream(base):
    return "".join(chunk.content for chunk in client(base).stream("How does water flow?"))


def tools(base):
    call = client(base).bind_tools([get_weather]).invoke("The weather?").tool_calls[0]
    return f"{call['name']} {call['args']['city']}"


def abort(base):
    chunks = client(base).stream("Speak slowly.")
    first = next(chunk.content for chunk in chunks if chunk.content)
    chunks.close()
    return first
