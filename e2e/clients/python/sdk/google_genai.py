import asyncio
import io

from google import genai
from google.genai import types

ASK = {"model": "gemini-3-pro", "contents": "How does water flow?"}
LIMITED = {"max_output_tokens": 20}


def client(base):
    return genai.Client(api_key="key", http_options=types.HttpOptions(base_url=base))


def plain(base):
    # Keeps a reference to the client, because an unreferenced client closes itself.
    sdk = client(base)
    return sdk.models.generate_content(config=LIMITED, **ASK).text


def stream(base):
    sdk = client(base)
    return "".join(chunk.text for chunk in sdk.models.generate_content_stream(config=LIMITED, **ASK))


def tools(base):
    schema = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}
    tool = {"function_declarations": [{"name": "get_weather", "description": "Weather.", "parameters": schema}]}
    sdk = client(base)
    answer = sdk.models.generate_content(config={"tools": [tool], **LIMITED}, **ASK)
    call = answer.function_calls[0]
    return f"{call.name} {call.args['city']}"


def upload(base):
    sdk = client(base)
    return sdk.files.upload(file=io.BytesIO(b"notes" * 5000), config={"mime_type": "text/plain"}).name


def count(base):
    sdk = client(base)
    return str(sdk.models.count_tokens(**ASK).total_tokens)


def abort(base):
    sdk = client(base)
    asked = {**ASK, "contents": "Speak slowly."}
    return next(iter(sdk.models.generate_content_stream(config=LIMITED, **asked))).text


def live(base):
    sdk = client(base)
    # With an API key, the library requires TLS, but the test gateway uses plain HTTP.
    sdk._api_client._websocket_base_url = lambda *_: base.replace("http", "ws", 1)
    sdk._api_client._websocket_ssl_ctx = {}

    async def turn():
        async with sdk.aio.live.connect(model=ASK["model"], config={"response_modalities": ["TEXT"]}) as session:
            await session.send_client_content(turns={"role": "user", "parts": [{"text": ASK["contents"]}]})
            return "".join([message.text or "" async for message in session.receive()])

    return asyncio.run(turn())
